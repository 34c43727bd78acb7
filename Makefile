# make [all]   build the programs into bin/
# make demo    the main job, on a small checkpoint that lies in test/data
# make check   every test; SANITIZE=1 with address and undefined-behaviour sanitizers
# make lint    formatting, static analysis, man pages
# make bench   how fast, how much memory; writes test/reports/bench.md
# make install PREFIX=/usr/local DESTDIR=
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
LDLIBS   := -larchive -ljansson -lpcre2-8 -lcrypto -lxxhash -lm

STAGES   := $(patsubst stages/%.c,$(BIN)/%,$(wildcard stages/*.c))
UNITS    := $(patsubst test/unit/%.c,$(BIN)/test/%,$(wildcard test/unit/*.c))
TOOLS    := $(patsubst test/%.c,$(BIN)/test/%,$(wildcard test/*.c))
COMMON   := $(patsubst %.c,$(OBJ)/%.o,$(wildcard common/*.c common/model/*.c))

SETUPS   := setup-build setup-check setup-lint setup-bench

.PHONY: all demo check lint bench install clean $(SETUPS)
all: $(STAGES) $(TOOLS)

$(OBJ)/%.o: %.c | setup-build
	@mkdir -p $(@D)
	$(COMPILE) -c -o $@ $<

$(OBJ)/common.a: $(COMMON)
	@rm -f $@
	@ar rcs $@ $^

$(STAGES): $(BIN)/%: $(OBJ)/stages/%.o $(OBJ)/common.a
	@mkdir -p $(@D)
	$(LINK) -o $@ $^ $(LDLIBS)

# Programs that run the model: oneDNN for products, OpenMP for threads.
RUNS_MODEL := amax-calib st-eval test/device test/deepseek_v4 test/forward
$(RUNS_MODEL:%=$(BIN)/%): LDLIBS += -ldnnl -fopenmp

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
