# make check and its parts. Each part prints its failures only; tests/count adds the lines up.
UNIT    := $(patsubst tests/unit/%.c,$(O)/tests/%,$(wildcard tests/unit/test_*.c))
FUZZ    := $(patsubst tests/fuzz/%.c,build/fuzz/tests/%,$(wildcard tests/fuzz/fuzz_*.c))
GOLDEN  := $(O)/tests/golden

# What programs are made of, without their main: an archive, so that a test takes only what it calls.
TOOLS_SRC := $(filter-out %/main.c,$(sort $(wildcard tools/*/*.c)))
$(O)/libtools.a: $(TOOLS_SRC:%.c=$(O)/obj/%.o)
	@rm -f $@
	$(Q)ar rcs $@ $^

$(O)/tests/test_%: $(O)/obj/tests/unit/test_%.o $(O)/libtools.a $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LDLIBS) -lcmocka

# The kernel test is several files: one a group of kernels.
$(O)/tests/test_kernels: $(patsubst %.c,$(O)/obj/%.o,$(sort $(wildcard tests/unit/kernels/*.c)))

# Tests with `--device emulator`.
EMULATED := $(patsubst %,$(O)/tests/test_%,kernels emulator linears pairs scaled steps)
$(EMULATED) $(GOLDEN): $(EMULATOR_OBJ)
$(O)/tests/test_emulator: $(O)/obj/tests/emulator/emulator_faulty.emulated.o
$(EMULATED) $(GOLDEN): LDLIBS += -lstdc++

# A program with that device, for tests/cli/dist_gpu.bats.
$(O)/tests/swift-train-emulated: $(call TOOL_OBJ,swift-train) $(EMULATOR_OBJ) $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lstdc++

# Optimisers, schedules and objectives live in swift-train; the golden runner calls them where they are.
GOLDEN_OBJ := $(patsubst %.c,$(O)/obj/%.o,$(sort $(wildcard tests/golden/*.c)) \
              $(filter-out %/main.c,$(wildcard tools/swift-train/*.c tools/swift-quant/*.c tools/swift-merge/*.c)))
$(GOLDEN): $(GOLDEN_OBJ) $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

build/fuzz/tests/fuzz_%: build/fuzz/obj/tests/fuzz/fuzz_%.o build/fuzz/libswift.a
	@mkdir -p $(@D)
	$(Q)clang -fopenmp -fsanitize=fuzzer,address,undefined -g -o $@ $^ $(LDLIBS)

.PHONY: tests fuzzers check-unit check-golden check-emulator check-gpu check-cli check-fuzz check-lint check-demo
tests: $(UNIT) $(GOLDEN) $(ENGINES)
fuzzers: $(FUZZ)
check:
	@Q=@ MAKE=$(MAKE) sh tests/check.sh lint unit golden emulator cli fuzz $(if $(DEMO),demo)
check-unit check-golden check-cli check-fuzz check-lint check-demo check-gpu:
	@Q=@ MAKE=$(MAKE) sh tests/check.sh $(@:check-%=%)
# All of it: more orders of threads, and with the sanitizers. `make check` has a part.
check-emulator:
	@Q=@ MAKE=$(MAKE) sh tests/check.sh emulator_all
