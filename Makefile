# make            the programs, in build/bin
# make check      all tests; ends with "N passed, N failed"
# make demo       a real fine-tune end to end (examples/demo)
# Variants: make VARIANT=asan ..., CC=clang. Every variant builds under its own folder.

VARIANT ?=
CC      ?= cc
O       := build$(if $(VARIANT),/$(VARIANT))
BIN     := $(O)/bin
PREFIX  ?= /usr/local
DESTDIR ?=

PROGRAMS := swift-tokenize swift-train swift-infer swift-eval swift-quant swift-merge
PROGRAMS := $(foreach p,$(PROGRAMS),$(if $(wildcard tools/$p/main.c),$p))

include kernels/kernels.mk

WARN     := -Wall -Wextra -Werror
CFLAGS   ?= -O2 -g
CPPFLAGS += -D_GNU_SOURCE -I. -Icommon
ALL_CFLAGS = -std=gnu11 -fopenmp $(WARN) $(CFLAGS) $(SAN)
LDLIBS   := -ldnnl -lzstd -lz -lcjson -lpcre2-8 -lutf8proc -lxxhash -ledit -ldl -lpthread -lm
ifeq ($(VARIANT),asan)
# gcc's guess about formats goes wrong under the sanitizers.
SAN      := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -Wno-format-truncation -Wno-maybe-uninitialized
CC       := gcc
CFLAGS   := -O1 -g
endif
ifeq ($(VARIANT),fuzz)
CC       := clang
SAN      := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
CFLAGS   := -O1 -g -DSW_FUZZ
endif
ifeq ($(VARIANT),clang)
CC       := clang
endif
# The programs with `--device emulator`: the CUDA kernels on the CPU (tests/emulator).
ifeq ($(VARIANT),emulator)
PROGRAM_EXTRA = $(EMULATOR_OBJ)
LDLIBS   += -lstdc++
endif

# Engines of communication (common/dist/comm.h), opened at run time; each is built where its library is.
CUDA     ?= /usr/local/cuda
MPI_PC   := $(firstword $(foreach p,ompi-c ompi mpich,$(shell pkg-config --exists $p 2>/dev/null && echo $p)))
ENGINES  := $(if $(MPI_PC),$(O)/lib/swift/libswift-mpi.so) $(if $(wildcard $(CUDA)/include/nccl.h),$(O)/lib/swift/libswift-nccl.so)
ENGINE_mpi  = $(shell pkg-config --cflags --libs $(MPI_PC))
ENGINE_nccl = -isystem $(CUDA)/include -L$(CUDA)/lib64 -Wl,-rpath,$(CUDA)/lib64 -lnccl -lcudart

LIB_SRC  := $(sort $(wildcard common/*/*.c))
LIB_OBJ  := $(LIB_SRC:%.c=$(O)/obj/%.o) $(O)/obj/template_parts.o $(KERNEL_OBJ)
LIB      := $(O)/libswift.a
TOOL_OBJ  = $(patsubst %.c,$(O)/obj/%.o,$(sort $(wildcard tools/$1/*.c)))

.PHONY: all check demo bench install deps format clean FORCE
.DELETE_ON_ERROR:
.SECONDARY:
all: $(PROGRAMS:%=$(BIN)/%) $(ENGINES)

$(O)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) $(EXTRA_$*) -MMD -MP -c $< -o $@

# Stored values are defined by separately rounded operations.
EXTRA_common/store/quant := -ffp-contract=off
EXTRA_kernels/blocks := -ffp-contract=off

# Jinja that the library carries: each file a string under its name below common/text.
TEMPLATE_PARTS := $(sort $(wildcard common/text/*.jinja common/text/agents/*.jinja common/text/hooks/*.jinja))
$(O)/template_parts.c: $(TEMPLATE_PARTS)
	@mkdir -p $(@D)
	$(Q){ echo '#include "text/template_format.h"'; echo 'const sw_template_part sw_template_parts[] = {'; for f in $(TEMPLATE_PARTS:common/text/%.jinja=%); do \
	    echo "{\"$$f\","; sed -e 's/[\\"]/\\&/g' -e 's/.*/"&\\n"/' common/text/$$f.jinja; echo '},'; done; echo '{0, 0}};'; } > $@
$(O)/obj/template_parts.o: $(O)/template_parts.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(LIB): $(LIB_OBJ)
	@rm -f $@
	$(Q)ar rcs $@ $^

include kernels/cuda/cuda.mk

define program_rule
$(BIN)/$1: $(call TOOL_OBJ,$1) $$(PROGRAM_EXTRA) $(LIB)
	@mkdir -p $$(@D)
	$$(Q)$$(CC) $$(ALL_CFLAGS) $$(LDFLAGS) -o $$@ $$^ $$(LDLIBS)
endef
$(foreach p,$(PROGRAMS),$(eval $(call program_rule,$p)))

$(O)/lib/swift/libswift-%.so: common/dist/engines/dist_%.c common/dist/comm.h kernels/tensor.c kernels/tensor.h
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(filter-out -fopenmp,$(ALL_CFLAGS)) -O3 -fPIC -shared -o $@ $(filter %.c,$^) $(ENGINE_$*)

include tests/tests.mk
-include $(shell find build -name '*.d' 2>/dev/null)

# ---- everything around it

APT := gcc g++ make libc6-dev libomp-dev clang libclang-rt-dev libdnnl-dev libzstd-dev zlib1g-dev libcjson-dev libpcre2-dev libutf8proc-dev \
       libxxhash-dev libedit-dev libcmocka-dev bats mandoc gnuplot-nox xz-utils python3 python3-pip python3-venv \
       git ca-certificates pkg-config clang-format libopenmpi-dev openmpi-bin libcurl4-openssl-dev libssl-dev
deps:
	@sh tests/lint/deps.sh $(APT)

# Lines changed since the last commit: tables that are laid out by hand stay as they are.
format:
	git clang-format --quiet --force --extensions c,h

install: all man
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man5 \
	    $(DESTDIR)$(PREFIX)/share/man/man7 $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	install -m 755 $(PROGRAMS:%=$(BIN)/%) $(DESTDIR)$(PREFIX)/bin
	$(if $(strip $(ENGINES) $(CUDA_BUILT)),install -d $(DESTDIR)$(PREFIX)/lib/swift && \
	    install -m 644 $(ENGINES) $(CUDA_BUILT) $(DESTDIR)$(PREFIX)/lib/swift)
	for s in 1 5 7; do for f in $(O)/man/man$$s/*.$$s; do \
	    [ ! -f $$f ] || install -m 644 $$f $(DESTDIR)$(PREFIX)/share/man/man$$s; done; done
	for p in $(PROGRAMS); do $(BIN)/$$p --help=completion > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/$$p; done

# man/man1/X.1.in has the lines @OPTIONS@ and @EXAMPLES@ where those of the program's own tables go.
MAN := $(patsubst man/%.in,$(O)/man/%,$(wildcard man/man*/*.in)) $(patsubst man/%,$(O)/man/%,$(wildcard man/man*/*.[157]))
.PHONY: man
man: $(MAN)
$(O)/man/%: man/%
	@mkdir -p $(@D)
	$(Q)cp $< $@
$(O)/man/man1/%.1: man/man1/%.1.in $(BIN)/%
	@mkdir -p $(@D)
	$(Q)$(BIN)/$* --help=man > $@.all && sed '/^\.Sh EXAMPLES/,$$d' $@.all > $@.opts && sed -n '/^\.Sh EXAMPLES/,$$p' $@.all > $@.examples
	$(Q)sed -e '/^@OPTIONS@$$/{r $@.opts' -e 'd}' -e '/^@EXAMPLES@$$/{r $@.examples' -e 'd}' $< > $@ && rm -f $@.all $@.opts $@.examples

# Pages that the programs write from their own tables; tests/lint/man.sh compares them.
.PHONY: lists
lists: $(BIN)/swift-infer $(BIN)/swift-tokenize
	$(BIN)/swift-infer --list-models --list-as man > man/man7/swift-models.7
	$(BIN)/swift-tokenize --list-templates --list-as man > man/man7/swift-templates.7

demo: deps
	@$(MAKE) --no-print-directory all
	@$(MAKE) --no-print-directory -C examples/demo $(if $(MODEL),MODEL='$(or $(realpath $(MODEL)),$(MODEL))')

# The model is the demo's, unless MODEL names another. PARTS names some parts only; PARTS=families (with PEERS=1) runs a random
# model of each kind of family beside transformers, PARTS=texts compares greedy texts with llama.cpp's.
# DEVICE=cuda runs random models in known shapes on a GPU instead, training, decoding and attention, beside PyTorch (tests/bench/gpu.py).
bench: all $(O)/bench/machine $(O)/bench/tokenize $(O)/bench/model $(O)/bench/attention
	@[ -n "$(MODEL)" ] || { mkdir -p build/demo && $(MAKE) --no-print-directory -C build/demo -f $(CURDIR)/examples/demo/Makefile \
	    SmolLM2-135M-Instruct.Q4_1.gguf; }
	@tests/bench/run
$(O)/bench/%: $(O)/obj/tests/bench/%.o $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

clean:
	rm -rf build
