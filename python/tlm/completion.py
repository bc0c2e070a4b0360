# SPDX-License-Identifier: GPL-2.0-or-later
"""Shell completion, made from the table of options."""

from . import options

COMMON = ('--help', '--version')
# First words of the subcommands, and those that a second one follows
FIRST = tuple(dict.fromkeys(c.split()[0] for c in options.COMMANDS))
GROUPS = tuple(w for w in FIRST if w not in options.COMMANDS)

BASH = '''# bash completion for tlm; made by "tlm --completion bash"
_tlm()
{{
    local cur=$2 prev=$3 command= i name=${{1##*/}}
    COMPREPLY=()
    case $name in
    {old_names}) command=${{name#tlm-}} ;;
    *)
        for ((i = 1; i < COMP_CWORD; i++)); do
            case $command${{command:+ }}${{COMP_WORDS[i]}} in
            {groups}) command=${{COMP_WORDS[i]}} ;;
            {commands}) command+=${{command:+ }}${{COMP_WORDS[i]}}; break ;;
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


def _second(group):
    return [c.split()[1] for c in options.COMMANDS if c.split()[0] == group]


def _values(command):
    """What follows an option; nothing for those that take none."""
    files, others = [], []
    for o in options.of(command):
        patterns = '|'.join(f"'{command}':{f}" for f in o.flags())
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
    words = [f"    {group}) {_reply(_second(group))} ;;" for group in GROUPS]
    for name in options.COMMANDS:
        values += _values(name)
        flags = [f for o in options.of(name) for f in o.flags()]
        words.append(f"    '{name}')\n"
                     '        [[ $cur != -* ]] || '
                     f'{_reply([*flags, *COMMON])} ;;')
    words.append('    *) ' + _reply([*FIRST, '--completion', *COMMON])
                 + ' ;;')
    return BASH.format(commands='|'.join(f"'{c}'" for c in options.COMMANDS),
                       groups='|'.join(GROUPS),
                       old_names='|'.join(options.OLD_NAMES),
                       names=' '.join(options.OLD_NAMES),
                       values='\n'.join(values), words='\n'.join(words))


SHELLS = {'bash': bash}
