# The CUDA device: a shared object for GPUs where nvcc is, and the same sources as C++ for tests/emulator.
#   make CUDA_ARCHS="75 90"    compute capabilities; the highest is kept as PTX too, for GPUs to come. Empty: no CUDA.
CUDA_SRC   := $(sort $(wildcard kernels/cuda/*.cu))
ifndef NVCC
NVCC       := $(firstword $(wildcard $(addsuffix /nvcc,$(subst :, ,$(PATH)) $(CUDA)/bin)))
endif
CUDA_ARCHS ?= 80 90 100

CUDA_LAST   = $(shell printf '%s\n' $(CUDA_ARCHS) | sort -n | tail -1)
CUDA_CODE   = $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$a,code=sm_$a) -gencode arch=compute_$(CUDA_LAST),code=compute_$(CUDA_LAST)
CUDA_OLDEST = $(shell printf '%s\n' $(CUDA_ARCHS) | sort -n | head -1)
CUDA_FLAGS  = -std=c++17 -O2 -I. -Icommon -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra,-Wno-unknown-pragmas -Xcudafe --diag_suppress=177 \
              -Wno-deprecated-gpu-targets -DSW_CUDA_OLDEST=$(CUDA_OLDEST) --threads 0
CUDA_OBJ    = $(CUDA_SRC:%.cu=$(O)/cuda/%.o) $(O)/cuda/kernels/tensor.o
CUDA_LIB    = $(O)/lib/swift/libswift-cuda.so

# Only the default build: the others are for finding mistakes on the host's side.
ifneq ($(and $(NVCC),$(CUDA_ARCHS)),)
ifeq ($(VARIANT),)
CUDA_BUILT = $(CUDA_LIB)
all: $(CUDA_BUILT)
endif
endif

# A list of architectures of its own: objects of another are made again.
$(O)/cuda/archs: FORCE
	@mkdir -p $(@D)
	@echo '$(CUDA_ARCHS)' | cmp -s - $@ || echo '$(CUDA_ARCHS)' > $@
$(O)/cuda/%.o: %.cu $(O)/cuda/archs
	@mkdir -p $(@D)
	$(Q)$(NVCC) $(CUDA_FLAGS) $(CUDA_CODE) -MMD -MP -MF $(@:.o=.d) -c $< -o $@
# Products of warpgroups are of 9.0 alone, which calls what it alone has 9.0a.
ifneq ($(filter 90,$(CUDA_ARCHS)),)
$(O)/cuda/%_wgmma.o: CUDA_CODE = -gencode arch=compute_90a,code=sm_90a -DSW_WGMMA_BUILT
endif
$(O)/cuda/kernels/tensor.o: kernels/tensor.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -std=gnu11 -O2 -fPIC -fvisibility=hidden $(WARN) -c $< -o $@
$(CUDA_LIB): $(CUDA_OBJ)
	@mkdir -p $(@D)
	$(Q)$(NVCC) -shared -o $@ $^ -lcublasLt -Xlinker -z,defs,-rpath,$(abspath $(dir $(NVCC))/../lib64)

# What each kernel takes of the GPU on one architecture, spills first. Fails where a kernel spills more than SPILL_MOST bytes.
.PHONY: bench-ptx
bench-ptx: BENCH_ARCH ?= 90
bench-ptx:
	@sh tests/bench/ptx.sh $(NVCC) $(filter-out --threads 0,$(CUDA_FLAGS)) -gencode arch=compute_$(BENCH_ARCH),code=sm_$(BENCH_ARCH)

# ---- the emulator
EMULATOR_SRC := $(sort $(wildcard tests/emulator/*.cc))
EMULATOR_OBJ  = $(CUDA_SRC:%.cu=$(O)/obj/%.emulated.o) $(EMULATOR_SRC:%.cc=$(O)/obj/%.o) $(O)/obj/tests/emulator/nccl_engine.o
EMULATOR_CXX  = $(if $(filter clang clang-%,$(notdir $(CC))),clang++,g++)
# Each operation of a stored value is rounded by itself, as __fmul_rn and its kind say.
EMULATOR_FLAGS = -std=gnu++17 -fopenmp $(WARN) -Wno-unknown-pragmas -Wno-pass-failed -ffp-contract=off $(CFLAGS) $(SAN) -Itests/emulator \
                 -DSW_CUDA_ENTRY=sw_emulator_open -DSW_CUDA_OLDEST=75
$(O)/obj/%.emulated.o: %.cu
	@mkdir -p $(@D)
	$(Q)$(EMULATOR_CXX) $(CPPFLAGS) $(EMULATOR_FLAGS) -MMD -MP -x c++ -c $< -o $@
# The engine for NCCL over emulated devices.
$(O)/obj/tests/emulator/nccl_engine.o: common/dist/engines/dist_nccl.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -Itests/emulator/nccl -Dswift_comm_engine=sw_emulator_nccl -MMD -MP -c $< -o $@
$(O)/obj/tests/emulator/%.o: tests/emulator/%.cc
	@mkdir -p $(@D)
	$(Q)$(EMULATOR_CXX) $(CPPFLAGS) $(EMULATOR_FLAGS) -MMD -MP -c $< -o $@
