# make [all]   build the programs into bin/
# make demo    the main job, on a small checkpoint that lies in test/data
# make check   every test, or those in TESTS='test/bats/threads.bats ...'; SANITIZE=1 with address and
#              undefined-behaviour sanitizers
# make races   the tests of all that runs on threads, with the thread sanitizer
# make fuzz    feed the parsers with changed input, RUNS=10000000 each; writes test/reports/fuzz.md
# make torture harm the programs in every way, see what is left; writes test/reports/torture.md
# make coverage  what the tests run of the code; writes test/reports/coverage.md
# make lint    formatting, static analysis, man pages
# make bench   how fast, how much memory; writes test/reports/bench.md; PEER=1 beside Model Optimizer
# make install PREFIX=/usr/local DESTDIR=
# make portable DIST=dist   for machines without our libraries: a folder to copy there
#
# DNNL=0 builds without oneDNN: there is no CPU to run models on then, only a GPU.
#
# CUDA is found, not demanded: CUDA=0 builds without it, NVCC=/path/to/nvcc says where it is.
#
# Missing Debian packages are installed first where that is possible (see test/tools/setup).

CC       ?= cc
PREFIX   ?= /usr/local
DESTDIR  ?=
SANITIZE ?= 0
PORTABLE ?= 0
DNNL     ?= 1
DIST     ?= dist

# Builds with SANITIZE=… and PORTABLE=1 lie beside the ordinary build, not over it.
ifeq ($(PORTABLE),1)
BIN := build/portable/bin
OBJ := build/portable/obj
CFLAGS ?= -O3
else ifeq ($(SANITIZE),0)
BIN := bin
OBJ := build/obj
CFLAGS ?= -O3 -g
else
BIN := build/sanitize-$(SANITIZE)/bin
OBJ := build/sanitize-$(SANITIZE)/obj
CFLAGS ?= -O1 -g
endif
SANITIZE_1      := -fsanitize=address,undefined -fno-sanitize-recover=all
# gcc's shared libubsan cannot report into a file (see test/tools/check).
SANITIZE_1      += $(if $(findstring Free Software,$(shell $(CC) --version)),-static-libubsan)
SANITIZE_thread := -fsanitize=thread
# The fuzzers' own.
SANITIZE_fuzz   := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
# No sanitizer: what ran is counted, in files that are mapped, so that no end of a process loses counts. Of
# C's _Noreturn the counting knows nothing: what comes behind a die() would count as run.
SANITIZE_coverage := -fprofile-instr-generate -fcoverage-mapping
COMPILED_coverage := -mllvm -runtime-counter-relocation '-D_Noreturn=__attribute__((noreturn))'
SANITIZERS      := $(SANITIZE_$(SANITIZE)) $(if $(SANITIZE:0=),-fno-omit-frame-pointer)

# CFLAGS, CPPFLAGS and LDFLAGS are the user's. What the code needs stays, whatever they are.
# Contraction off: every product and sum is rounded, as the formats' contract says.
INCLUDE  := -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Icommon
LANGUAGE := -std=gnu17 -Wall -Wextra -Werror -fopenmp $(SANITIZERS)
COMPILE   = $(CC) $(LANGUAGE) $(COMPILED_$(SANITIZE)) $(INCLUDE) $(CPPFLAGS) $(CFLAGS) -ffp-contract=off \
            -MMD -MP
LINK      = $(CC) $(SANITIZERS) $(LDFLAGS)
LDLIBS   := -larchive -ljansson -lpcre2-8 -lcrypto -lxxhash -lm

# Portable: libraries inside, or in lib/ beside bin/. An RPATH, since it holds for what those need in
# turn, too; a RUNPATH would not. What libarchive has beside tar and zip goes (and with it what that
# would need), but its reader of zip wants decompressors.
ifeq ($(PORTABLE),1)
UP       := ..
LINK     += -s -Wl,--gc-sections,--disable-new-dtags,-rpath,'$$ORIGIN/$(UP)/lib'
LDLIBS   := -Wl,-Bstatic -larchive -lnettle -lbz2 -llzma -lzstd -lz -ljansson -lpcre2-8 -lcrypto -lxxhash \
            -Wl,-Bdynamic -lm
endif

# nvcc with cuBLASLt's header beside it, for those GPUs that it knows. SANITIZE=1 and fuzzers go without.
NVCC      ?= $(firstword $(shell command -v nvcc) /usr/local/cuda/bin/nvcc)
CUDA      ?= $(if $(filter 1 fuzz,$(SANITIZE)),0,1)
CUDA_HOME := $(abspath $(dir $(realpath $(shell command -v $(NVCC))))/..)
CUDA_HAS  := $(and $(filter-out 0,$(CUDA)),$(wildcard $(CUDA_HOME)/include/cublasLt.h),\
               $(shell $(NVCC) --list-gpu-code))
GPUS      := $(filter $(CUDA_HAS),sm_90 sm_100 sm_120)
NVCCFLAGS ?= -O3
ifneq ($(GPUS),)
CUDA_LINE := $(GPUS), nvcc $(shell $(NVCC) --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')
GPU_CODE  := $(foreach gpu,$(GPUS),-gencode arch=$(gpu:sm_%=compute_%),code=$(gpu))
GPU       := $(filter-out cuda/none.c,$(wildcard cuda/*.c cuda/*.cu))
CUDA_LIBS := -L$(CUDA_HOME)/lib64 -lcudart_static -ldl -lrt -lpthread
$(OBJ)/cuda/%.o: INCLUDE += -I$(CUDA_HOME)/include
else
CUDA_LINE := no
GPU       := cuda/none.c
endif
# As above: no contraction, no fast mathematics, subnormals stay.
COMPILE_CUDA = $(NVCC) -std=c++17 -Xcompiler -Wall,-Wextra,-Werror,-fno-exceptions $(GPU_CODE) \
               -Xcompiler -fno-threadsafe-statics $(INCLUDE) $(NVCCFLAGS) -fmad=false -MMD -MP

STAGES   := $(patsubst stages/%.c,$(BIN)/%,$(wildcard stages/*.c))
UNITS    := $(patsubst test/unit/%.c,$(BIN)/test/%,$(wildcard test/unit/*.c))
TOOLS    := $(patsubst %.c,$(BIN)/test/%,$(notdir $(wildcard test/tools/*.c test/bench/*.c)))
TOOLS    := $(filter-out $(if $(filter 0,$(DNNL)),%/gemm-rate),$(TOOLS))
FUZZERS  := $(patsubst test/fuzz/%.c,$(BIN)/fuzz/%,$(filter-out %/fuzz.c,$(wildcard test/fuzz/*.c)))
SOURCES  := $(wildcard common/*/*.c common/*/*/*.c)

# The CPU as a device, or what stands in for it.
NO_CPU   := common/cpu/none.c
CPU      := $(filter-out $(NO_CPU),$(wildcard common/cpu/*.c))
COMMON   := $(filter-out $(if $(filter 0,$(DNNL)),$(CPU),$(NO_CPU)),$(SOURCES))
COMMON   := $(patsubst %,$(OBJ)/%.o,$(basename $(COMMON) $(GPU)))

# What reads input. Each of their branches is accounted for: no count may be lost between processes.
PARSERS  := json safetensors toc names tar_in ts_open ts_in checkpoint source pickle pt tokenizer bpe pretokenizer \
            pattern utf8 recipe
PARSERS  := $(foreach p,$(PARSERS),$(wildcard common/*/$p.c))
$(PARSERS:%.c=$(OBJ)/%.o): COMPILED_coverage += -fprofile-update=atomic

SETUPS   := setup-build setup-check setup-lint setup-bench setup-fuzz setup-portable

.PHONY: all cuda demo check races fuzz torture coverage lint bench install portable clean FORCE $(SETUPS)
.PHONY: races-here fuzzers fuzzers-here fuzzers-covered coverage-here
all: cuda $(STAGES) $(TOOLS)

cuda:
	@echo "cuda: $(CUDA_LINE)"

$(OBJ)/%.o: %.c | setup-build
	@mkdir -p $(@D)
	$(COMPILE) -c -o $@ $<

$(OBJ)/%.o: %.cu | setup-build
	@mkdir -p $(@D)
	$(COMPILE_CUDA) -c -o $@ $<

# What the library is made of; newer than the library if that has changed.
$(OBJ)/members: FORCE
	@mkdir -p $(@D)
	@echo '$(COMMON)' | cmp -s - $@ || echo '$(COMMON)' >$@

$(OBJ)/common.a: $(COMMON) $(OBJ)/members
	@rm -f $@
	@ar qcs $@ $(COMMON)

$(STAGES): $(BIN)/%: $(OBJ)/stages/%.o $(OBJ)/common.a
	@mkdir -p $(@D)
	$(LINK) -o $@ $^ $(LDLIBS)

$(TOOLS) $(UNITS): UP := ../..

# Programs that run the model: oneDNN or cuBLASLt for products, OpenMP for threads.
RUNS_MODEL := amax-calib st-eval test/cuda test/device test/deepseek_v4 test/forward
$(RUNS_MODEL:%=$(BIN)/%): LDLIBS += $(if $(filter 0,$(DNNL)),,-ldnnl) -fopenmp $(CUDA_LIBS)

$(BIN)/test/mkckpt: LDLIBS += -fopenmp
$(BIN)/test/gemm-rate: LDLIBS += -ldnnl -fopenmp

vpath %.c test/tools test/bench
$(OBJ)/test/%.o: %.c | setup-build
	@mkdir -p $(@D)
	$(COMPILE) -c -o $@ $<

$(TOOLS): $(BIN)/test/%: $(OBJ)/test/%.o $(OBJ)/common.a
	@mkdir -p $(@D)
	$(LINK) -o $@ $^ $(LDLIBS)

$(UNITS:$(BIN)/test/%=$(OBJ)/test/unit/%.o): | setup-check
$(UNITS): $(BIN)/test/%: $(OBJ)/test/unit/%.o $(OBJ)/common.a
	@mkdir -p $(@D)
	$(LINK) -o $@ $^ -lcmocka $(LDLIBS)

# Fuzzers: `make fuzzers`, by clang. What ends a process comes back to them (see test/fuzz/fuzz.h).
WRAPPED := die die_errno die_usage warn
$(BIN)/fuzz/pt: WRAPPED += archive_read_support_format_zip_seekable
$(FUZZERS): $(BIN)/fuzz/%: $(OBJ)/test/fuzz/%.o $(OBJ)/test/fuzz/fuzz.o $(OBJ)/common.a
	@mkdir -p $(@D)
	$(LINK) -fsanitize=fuzzer $(WRAPPED:%=-Wl,--wrap=%) -o $@ $^ $(LDLIBS)

fuzzers-here: $(FUZZERS)
fuzzers fuzzers-covered: setup-fuzz
fuzzers:
	@+$(MAKE) --no-print-directory SANITIZE=fuzz CC=clang fuzzers-here
fuzzers-covered:
	@+$(MAKE) --no-print-directory SANITIZE=coverage CC=clang fuzzers-here

-include $(wildcard $(OBJ)/*/*.d $(OBJ)/*/*/*.d $(OBJ)/*/*/*/*.d)

$(SETUPS): setup-%:
	@CC="$(CC)" CPPFLAGS="$(CPPFLAGS)" DNNL="$(DNNL)" test/tools/setup $*

demo: all
	@test/tools/demo

check: setup-check all $(UNITS) $(BIN)/test/short.so fuzzers
	@BIN=$(BIN) test/tools/check $(TESTS)

# What has threads of its own or OpenMP's, which clang's sanitizer understands.
THREADED := source prefetch device deepseek_v4 die forward ordered_pool launch ranks
THREADED := $(THREADED:%=$(BIN)/test/%) \
            $(patsubst %,test/bats/%.bats,threads ranks amax-calib st-eval dequantize nvfp4-cast nvfp4-pack \
              st-cmp st-stat st-sum st-write parts resume)
races: setup-check
	@+$(MAKE) --no-print-directory SANITIZE=thread CC=clang races-here
races-here: all $(UNITS) $(BIN)/test/short.so
	@BIN=$(BIN) test/tools/check $(THREADED)

# Preloaded by test/torture, for reads and writes that move less than they should.
$(BIN)/test/short.so: test/torture/short.c | setup-build
	@mkdir -p $(@D)
	$(CC) -std=gnu17 -Wall -Wextra -Werror -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -O2 -shared -fPIC -o $@ $<

torture: setup-check setup-bench all $(BIN)/test/short.so
	@test/torture/run

fuzz: fuzzers fuzzers-covered
	@test/fuzz/run

coverage: setup-check setup-fuzz
	@+$(MAKE) --no-print-directory SANITIZE=coverage CC=clang coverage-here
coverage-here: all $(UNITS) $(FUZZERS) $(BIN)/test/short.so
	@test/tools/coverage $(PARSERS)

lint: setup-lint
	@INCLUDE="$(INCLUDE)" test/tools/lint

bench: setup-bench all
	@PEER=$(PEER) test/bench/run

install: all
	@BIN=$(BIN) test/install "$(DESTDIR)" "$(PREFIX)"

# Besides the programs: what test/gpu-check and test/bench/gpu-bench run there.
CHECKERS := $(filter test/%,$(RUNS_MODEL)) test/libraries test/mkckpt
portable: setup-portable
ifeq ($(PORTABLE),1)
portable: $(STAGES) $(CHECKERS:%=$(BIN)/%)
	@BIN=$(BIN) packaging/portable $(DIST)
else
	@$(MAKE) --no-print-directory PORTABLE=1 portable
endif

clean:
	rm -rf bin build dist
