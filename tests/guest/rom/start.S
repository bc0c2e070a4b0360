/*
 * Firmware-ROM test guest: reset vector, switch to flat 32-bit mode, AP entry
 *
 * The image is 64 KiB, loaded with -bios.  Everything runs from its alias
 * below 1 MiB (0xF0000), which is the same on every PC machine type.  The GDT
 * lies in ROM, so its descriptors have the accessed bit set beforehand: an
 * emulating hypervisor would otherwise fail to write the bit back.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "layout.h"

        .global trampoline, trampoline_end, rom_start

        .section .text.start, "ax"

        .code16
rom_start:                              /* must be the first thing in the image */
start16:
        cli
        cld
        lgdtl   %cs:(gdtr - rom_start)
        movl    %cr0, %eax
        orl     $1, %eax
        movl    %eax, %cr0
        ljmpl   $SEL_CODE, $start32

ap16:
        cli
        cld
        lgdtl   %cs:(gdtr - rom_start)
        movl    %cr0, %eax
        orl     $1, %eax
        movl    %eax, %cr0
        ljmpl   $SEL_CODE, $ap32

        .code32
start32:
        movl    $SEL_DATA, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    %eax, %fs
        movl    %eax, %gs
        movl    $(STACK_BASE + STACK_SIZE), %esp
        call    bsp_setup
        pushl   $0
        call    worker                  /* returns when there was an error */
        jmp     park

ap32:
        movl    $SEL_DATA, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    %eax, %fs
        movl    %eax, %gs
        movl    $1, %ebx
        lock xaddl %ebx, (PROGRESS_BASE + PROGRESS_AP_COUNTER)
        cmpl    $MAX_VCPUS, %ebx
        jae     park
        movl    %ebx, %eax
        imull   $STACK_SIZE, %eax, %eax
        leal    (STACK_BASE + STACK_SIZE)(%eax), %esp
        pushl   %ebx
        call    worker

park:
        cli
        hlt
        jmp     park

/* Copied to TRAMPOLINE_BASE; a startup IPI enters it in real mode */
        .code16
trampoline:
        ljmp    $(ROM_BASE >> 4), $(ap16 - rom_start)
trampoline_end:

        .balign 8
gdt:
        .quad   0
        .quad   0x00cf9b000000ffff      /* SEL_CODE */
        .quad   0x00cf93000000ffff      /* SEL_DATA */
gdt_end:
gdtr:
        .word   gdt_end - gdt - 1
        .long   gdt

        .section .reset, "ax"
        .code16
        ljmp    $(ROM_BASE >> 4), $0
        .balign 16, 0
