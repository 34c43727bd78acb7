# make [all]   build the programs into bin/
# make demo    the main job, on a small checkpoint that lies in test/data
# make check   every test; SANITIZE=1 with address and undefined-behaviour sanitizers
# make lint    formatting, static analysis, man pages
# make bench   how fast, how much memory; writes test/reports/bench.md
# make install PREFIX=/usr/local DESTDIR=
#
# CUDA is found, not demanded: CUDA=0 builds without it, NVCC=/path/to/nvcc says where it is.
#
# Missing Debian packages are installed first where that is possible (see test/setup).

CC       ?= cc
PREFIX   ?= /usr/local
DESTDIR  ?=
SANITIZE ?= 0

# SANITIZE=1 builds beside the ordinary build, not over it.
ifeq ($(SANITIZE),1)
BIN := build/sanitize/bin
OBJ := build/sanitize/obj
SANITIZERS := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
# gcc's shared libubsan cannot report into a file (see test/check).
SANITIZERS += $(if $(findstring Free Software,$(shell $(CC) --version)),-static-libubsan)
CFLAGS ?= -O1 -g
else
BIN := bin
OBJ := build/obj
CFLAGS ?= -O3 -g
endif

# CFLAGS, CPPFLAGS and LDFLAGS are the user's. What the code needs stays, whatever they are.
# Contraction off: every product and sum is rounded, as the formats' contract says.
INCLUDE  := -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Icommon
LANGUAGE := -std=gnu17 -Wall -Wextra -Werror -fopenmp $(SANITIZERS)
COMPILE   = $(CC) $(LANGUAGE) $(INCLUDE) $(CPPFLAGS) $(CFLAGS) -ffp-contract=off -MMD -MP
LINK      = $(CC) $(SANITIZERS) $(LDFLAGS)
LDLIBS   := -larchive -ljansson -lpcre2-8 -lcrypto -lm

# nvcc with cuBLASLt's header beside it, for those GPUs that it knows. SANITIZE=1 goes without.
NVCC      ?= $(firstword $(shell command -v nvcc) /usr/local/cuda/bin/nvcc)
CUDA      ?= $(if $(filter 1,$(SANITIZE)),0,1)
CUDA_HOME := $(abspath $(dir $(realpath $(shell command -v $(NVCC))))/..)
CUDA_HAS  := $(and $(filter-out 0,$(CUDA)),$(wildcard $(CUDA_HOME)/include/cublasLt.h),\
               $(shell $(NVCC) --list-gpu-code))
GPUS      := $(filter $(CUDA_HAS),sm_90 sm_100 sm_120)
ifneq ($(GPUS),)
CUDA_LINE := $(GPUS), nvcc $(shell $(NVCC) --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')
DEVICE    := $(patsubst %.cu,$(OBJ)/%.o,$(wildcard cuda/*.cu))
CUDA_LIBS := -L$(CUDA_HOME)/lib64 -Wl,-rpath,$(CUDA_HOME)/lib64 -lcublasLt -lcudart_static -ldl -lrt
NVCCFLAGS ?= -O3 --generate-line-info
# As above: no contraction, no fast mathematics, subnormals stay.
COMPILE_CUDA = $(NVCC) -std=c++17 -Xcompiler -Wall,-Wextra,-Werror,-fno-exceptions,-fno-threadsafe-statics $(INCLUDE) \
    $(foreach gpu,$(GPUS),-gencode arch=$(gpu:sm_%=compute_%),code=$(gpu)) -fmad=false $(NVCCFLAGS) -MMD -MP
else
CUDA_LINE := no
DEVICE    := $(OBJ)/cuda/none.o
endif

STAGES   := $(patsubst stages/%.c,$(BIN)/%,$(wildcard stages/*.c))
UNITS    := $(patsubst test/unit/%.c,$(BIN)/test/%,$(wildcard test/unit/*.c))
TOOLS    := $(patsubst test/%.c,$(BIN)/test/%,$(wildcard test/*.c))
COMMON   := $(patsubst %.c,$(OBJ)/%.o,$(wildcard common/*.c common/model/*.c))

SETUPS   := setup-build setup-check setup-lint setup-bench

.PHONY: all cuda demo check lint bench install clean $(SETUPS)
all: cuda $(STAGES) $(TOOLS)

cuda:
	@echo "cuda: $(CUDA_LINE)"

$(OBJ)/%.o: %.c | setup-build
	@mkdir -p $(@D)
	$(COMPILE) -c -o $@ $<

$(OBJ)/%.o: %.cu | setup-build
	@mkdir -p $(@D)
	$(COMPILE_CUDA) -c -o $@ $<

$(OBJ)/common.a: $(COMMON) $(DEVICE)
	@rm -f $@
	@ar rcs $@ $^

$(STAGES): $(BIN)/%: $(OBJ)/stages/%.o $(OBJ)/common.a
	@mkdir -p $(@D)
	$(LINK) -o $@ $^ $(LDLIBS)

# Programs that run the model: oneDNN or cuBLASLt for products, OpenMP for threads.
RUNS_MODEL := amax-calib st-eval test/cuda test/device test/deepseek_v4 test/forward
$(RUNS_MODEL:%=$(BIN)/%): LDLIBS += -ldnnl -fopenmp $(CUDA_LIBS)

$(TOOLS): $(BIN)/test/%: $(OBJ)/test/%.o $(OBJ)/common.a
	@mkdir -p $(@D)
	$(LINK) -o $@ $^ $(LDLIBS)

$(UNITS:$(BIN)/test/%=$(OBJ)/test/unit/%.o): | setup-check
$(UNITS): $(BIN)/test/%: $(OBJ)/test/unit/%.o $(OBJ)/common.a
	@mkdir -p $(@D)
	$(LINK) -o $@ $^ -lcmocka $(LDLIBS)

-include $(wildcard $(OBJ)/*/*.d $(OBJ)/*/*/*.d)

$(SETUPS): setup-%:
	@CC="$(CC)" CPPFLAGS="$(CPPFLAGS)" test/setup $*

demo: all
	@test/demo

check: setup-check all $(UNITS)
	@BIN=$(BIN) test/check

lint: setup-lint
	@INCLUDE="$(INCLUDE)" test/lint

bench: setup-bench all
	@test/bench

install: all
	@BIN=$(BIN) test/install "$(DESTDIR)" "$(PREFIX)"

clean:
	rm -rf bin build
