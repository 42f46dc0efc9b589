# The kernels, and the instruction-set levels for which the CPU ones are built. Each file of kernels/cpu is compiled
# once a level, with SW_ISA naming the level; kernels/cpu_select.c picks by what the processor has.
KERNEL_SRC := $(sort $(wildcard kernels/*.c kernels/reference/*.c))
CPU_SRC    := $(sort $(wildcard kernels/cpu/*.c))
ifeq ($(shell uname -m),x86_64)
ISA_LEVELS := base avx2 avx512
else
ISA_LEVELS := base
endif
ISA_base   :=
ISA_avx2   := -mavx2 -mfma -mf16c -mbmi2
ISA_avx512 := -mavx2 -mfma -mf16c -mbmi2 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512bf16 -mprefer-vector-width=512
# The order of sums is written out in the sources, so results don't depend on the compiler's choice.
CPU_MATH   := -O3 -fno-math-errno -fno-trapping-math

KERNEL_OBJ = $(KERNEL_SRC:%.c=$(O)/obj/%.o) $(foreach i,$(ISA_LEVELS),$(CPU_SRC:%.c=$(O)/obj/%.$i.o))
# Stored values are defined by separately rounded operations.
EXTRA_kernels/cpu/cpu_blocks := -ffp-contract=off
EXTRA_kernels/cpu/cpu_rounded := -ffp-contract=off
EXTRA_kernels/cpu/cpu_route := -ffp-contract=off

define isa_rule
$$(O)/obj/kernels/cpu/%.$1.o: kernels/cpu/%.c
	@mkdir -p $$(@D)
	$$(Q)$$(CC) $$(CPPFLAGS) $$(ALL_CFLAGS) $$(CPU_MATH) $$(ISA_$1) $$(EXTRA_$$(basename $$<)) -DSW_ISA=$1 -MMD -MP -c $$< -o $$@
endef
$(foreach i,$(ISA_LEVELS),$(eval $(call isa_rule,$i)))
