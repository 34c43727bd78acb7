# make [all]      build the programs into bin/; V=1 shows the commands
# make demo       the main job, on a small checkpoint that lies in test/data
# make install    copy programs, pipelines, recipes, man pages and completion for bash, zsh and fish to
#                 PREFIX=/usr/local, below DESTDIR=
# make uninstall  remove the same files
# make deps       install the Debian packages that building and testing need; make deps-build only what
#                 building needs, deps-lint and deps-bench what these need
# make clean      remove all that was built
#
# CC, CFLAGS, CPPFLAGS and LDFLAGS are the user's. CUDA is found, not required: CUDA=0 builds without it,
# CUDA=library makes a library of it, which programs load if it is installed; NVCC=/path/to/nvcc says where it
# is. DNNL=0 builds without oneDNN: only a GPU can run models then.

# The one that programs print, for pages and packages.
VERSION  := $(shell sed -n 's/^.define SEEKPIPE_VERSION "\(.*\)"$$/\1/p' common/base/version.h)

PREFIX   ?= /usr/local
DNNL     ?= 1

# Builds with SANITIZE=... and PORTABLE=1 lie beside the ordinary build, not over it.
VARIANT  := $(if $(PORTABLE),portable,$(addprefix sanitize-,$(filter-out 0,$(SANITIZE))))
BIN      := $(if $(VARIANT),build/$(VARIANT)/)bin
OBJ      := build/$(if $(VARIANT),$(VARIANT)/)obj
CFLAGS   ?= $(if $(filter sanitize-%,$(VARIANT)),-O1,-O3) -g

# The objects of source files. Those of CUDA take long and are the same in each variant.
CUDA_OBJ := build/cuda
objects   = $(patsubst $(OBJ)/%.cu.o,$(CUDA_OBJ)/%.cu.o,$(1:%=$(OBJ)/%.o))

# What the code needs stays, whatever the user's flags are. Contraction off: every product and sum is
# rounded, as the formats' contract says.
INCLUDE  := -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Icommon
COMPILE   = $(CC) -std=gnu17 -Wall -Wextra -fopenmp $(SANITIZERS) $(COUNTERS) $(INCLUDE) $(CPPFLAGS) \
            $(CFLAGS) -ffp-contract=off -MMD -MP
LINK      = $(CC) $(SANITIZERS) $(LDFLAGS)
# Only programs that run the model come to need oneDNN or cuBLASLt for products, and OpenMP
# to tell oneDNN that a product stays on one thread.
LIBS     := -larchive -ljansson -lpcre2-8 -lcrypto -lxxhash -lutf8proc
LDLIBS    = -Wl,--as-needed $(LIBS) -lm $(if $(filter 0,$(DNNL)),,-ldnnl) -fopenmp \
            $(if $(filter $(SEPARATE),$(GPU)),-Wl$(comma)--dynamic-list=cuda/exports,$(CUDA_LIBS))
comma     = ,

.DEFAULT_GOAL := all

# Of each device, the CPU and the GPU: its files, or one that stands in for it.
include cuda/Makefile
NO_CPU   := common/cpu/none.c
LEFT_OUT := $(if $(filter 0,$(DNNL)),$(filter-out $(NO_CPU),$(wildcard common/cpu/*.c)),$(NO_CPU))
COMMON   := $(filter-out $(LEFT_OUT),$(wildcard common/*/*.c common/*/*/*.c)) $(GPU)
COMMON   := $(call objects,$(COMMON))
STAGES   := $(patsubst stages/%.c,$(BIN)/%,$(wildcard stages/*.c))

.PHONY: all cuda demo install uninstall deps help clean FORCE
.DELETE_ON_ERROR:
all: cuda $(STAGES) $(CUDA_SO)

cuda:
	@echo "cuda: $(or $(CUDA_LINE),no)"

# An object has the whole name of its source, so that what is known of one never concerns another.
quiet = $(if $(filter-out 0,$(V)),,@echo '$1';)
$(OBJ)/%.c.o: %.c $(OBJ)/cc.flags
	@mkdir -p $(@D)
	$(call quiet,CC $<)$(COMPILE) $(WERROR) -c -o $@ $<

$(CUDA_OBJ)/%.cu.o: %.cu $(CUDA_OBJ)/nvcc.flags
	@mkdir -p $(@D)
	$(call quiet,NVCC $<)$(COMPILE_CUDA) $(WERROR:%=-Xcompiler %) -c -o $@ $<

$(OBJ)/common.a: $(COMMON) $(OBJ)/ld.flags
	$(call quiet,AR $@)rm -f $@ && $(AR) qcs $@ $(COMMON)

define link
	@mkdir -p $(@D)
	$(call quiet,LD $@)$(LINK) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LDLIBS)
endef
$(STAGES): $(BIN)/%: $(OBJ)/stages/%.c.o $(OBJ)/common.a
	$(link)

# These files change when the flags in them do, and what was built with the flags is built again. That is
# also when a build looks for the libraries that it needs.
$(OBJ)/cc.flags:   export FLAGS = $(COMPILE)
$(CUDA_OBJ)/nvcc.flags: export FLAGS = $(COMPILE_CUDA)
$(OBJ)/ld.flags:   export FLAGS = $(LINK) $(LDLIBS) $(COMMON)
$(CUDA_OBJ)/nvcc.flags $(OBJ)/ld.flags: | $(OBJ)/cc.flags
%.flags: FORCE
	@mkdir -p $(@D)
	@echo "$$FLAGS" | cmp -s - $@ || { $(setup) -n $(or $(VARIANT:sanitize-%=),build) && echo "$$FLAGS" >$@; }

-include $(shell find $(OBJ) $(CUDA_OBJ) -name '*.d' 2>/dev/null)

setup = CC="$(CC)" CPPFLAGS="$(CPPFLAGS)" DNNL="$(DNNL)" test/tools/setup
deps: deps-check
deps-%:
	@$(setup) $*

# On all processors, if make was not told how many.
build = $(MAKE) --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))
demo: deps-build
	@+$(build) all
	@pipelines/seekpipe-demo build

# Mode, how it is made of a file, that file, and its place below PREFIX.
PIPELINES := $(filter-out %.bash %/slurm %/recipes,$(wildcard pipelines/*))
PROGRAMS  := $(STAGES) $(PIPELINES)
DEMO      := $(wildcard test/data/v4-nano/ckpt/*.json test/data/v4-nano/ckpt/*.safetensors test/data/text/*.jsonl)
SHARED    := $(wildcard pipelines/*.bash pipelines/recipes/*/*)
SLURM     := $(wildcard pipelines/slurm/*)
INSTALLED := $(foreach f,$(STAGES),755 copy $f bin/$(notdir $f)) \
             $(foreach f,$(PIPELINES),755 pipeline $f bin/$(notdir $f)) \
             $(foreach f,$(CUDA_SO),644 copy $f lib/seekpipe/$(notdir $f)) \
             $(foreach f,$(SHARED),644 copy $f share/seekpipe/$(f:pipelines/%=%)) \
             $(foreach f,$(SLURM),755 copy $f share/seekpipe/$(f:pipelines/%=%)) \
             $(foreach f,$(DEMO),644 copy $f share/seekpipe/demo/$(f:test/data/%=%)) \
             $(foreach f,$(wildcard man/*.[1-9]),644 page $f share/man/man$(subst .,,$(suffix $f))/$(notdir $f)) \
             $(foreach f,$(PROGRAMS),644 bash $f share/bash-completion/completions/$(notdir $f)) \
             $(foreach f,$(PROGRAMS),644 zsh $f share/zsh/site-functions/_$(notdir $f)) \
             $(foreach f,$(PROGRAMS),644 fish $f share/fish/vendor_completions.d/$(notdir $f).fish)
# Pipelines source what they share from another folder than their own; pages say the version.
pipeline   = sed '/^\. /s|/\([a-z0-9]*\.bash"\)$$|/../share/seekpipe/\1|'
page       = sed 's/^\.Os.*/.Os seekpipe $(VERSION)/'
root      := $(DESTDIR)$(or $(filter /%,$(PREFIX)),$(error PREFIX '$(PREFIX)' is not an absolute path))

install: all
	@printf '%s %s %s %s\n' $(INSTALLED) | while read -r mode how file place; do \
	    case $$how in copy) set -- cat ;; pipeline) set -- $(pipeline) ;; page) set -- $(page) ;; \
	        *) set -- packaging/completion "$$how" ;; esac; \
	    install -D -m "$$mode" /dev/null "$(root)/$$place" && "$$@" "$$file" >"$(root)/$$place" || exit; done
	@echo "installed in $(root)"

uninstall:
	@printf '%s %s %s %s\n' $(INSTALLED) | while read -r _ _ _ place; do rm -f "$(root)/$$place"; done
	@for folder in share lib; do [ ! -d "$(root)/$$folder/seekpipe" ] || \
	    find "$(root)/$$folder/seekpipe" -depth -type d -empty -delete; done

help:
	@awk '/^$$/ { nextfile } { sub(/^# ?/, "") } 1' Makefile test/Makefile packaging/Makefile

clean:
	rm -rf bin build dist

include test/Makefile packaging/Makefile
