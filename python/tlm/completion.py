# SPDX-License-Identifier: GPL-2.0-or-later
"""Shell completion, made from the table of options."""

from . import options

COMMON = ('--help', '--version')

BASH = '''# bash completion for tlm; made by "tlm --completion bash"
_tlm()
{{
    local cur=$2 prev=$3 command= i name=${{1##*/}}
    COMPREPLY=()
    case $name in
    {old_names}) command=${{name#tlm-}} ;;
    *)
        for ((i = 1; i < COMP_CWORD; i++)); do
            case ${{COMP_WORDS[i]}} in
            {commands}) command=${{COMP_WORDS[i]}}; break ;;
            esac
        done ;;
    esac
    case $command:$prev in
{values}
    esac
    case $command in
{words}
    esac
}}
complete -o default -F _tlm tlm {names}
'''


def _reply(words):
    return f"COMPREPLY=($(compgen -W '{' '.join(words)}' -- \"$cur\"))"


def _values(command):
    """What follows an option; nothing for those that take none."""
    files, others = [], []
    for o in options.of(command):
        patterns = '|'.join(f'{command}:{f}' for f in o.flags())
        if o.choices:
            yield f'    {patterns}) {_reply(o.choices)}; return ;;'
        elif o.file:
            files.append(patterns)
        elif o.parse:
            others.append(patterns)
    if files:
        yield f"    {'|'.join(files)}) return ;;    # a file"
    if others:
        yield f"    {'|'.join(others)})\n        compopt +o default; " \
              'return ;;'


def bash():
    """The text of a file for bash-completion."""
    values = ['    :--completion) ' + _reply(SHELLS) + '; return ;;']
    words = []
    for name in options.COMMANDS:
        values += _values(name)
        flags = [f for o in options.of(name) for f in o.flags()]
        words.append(f'    {name})\n        [[ $cur != -* ]] || '
                     f'{_reply([*flags, *COMMON])} ;;')
    words.append('    *) ' + _reply([*options.COMMANDS, '--completion',
                                     *COMMON]) + ' ;;')
    return BASH.format(commands='|'.join(options.COMMANDS),
                       old_names='|'.join(options.OLD_NAMES),
                       names=' '.join(options.OLD_NAMES),
                       values='\n'.join(values), words='\n'.join(words))


SHELLS = {'bash': bash}
