/* What amax-calib --resume keeps: what is recorded so far, and hidden states; and those of
 * --states-in. Each input is read as all three. */
#include "forward/resume.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "entries.h"
#include "forward/states.h"
#include "fuzz.h"

/* Two samples, and a model of two layers. */
enum { SAMPLES = 2, LENGTH = 4, ROWS = 7, DIM = 3, CARRIED = 2, COLUMNS = DIM + CARRIED };
static const char digits[DIGEST_TEXT] =
    "00000000000000000000000000000000000000000000000000000000000000aa";

/* ---- a device that only holds the hidden states ---- */

static struct mat fetch(struct device *d, struct offloaded offloaded, uint64_t first, uint64_t rows)
{
    (void)d;
    fuzz_must(first <= ROWS && rows <= ROWS - first, "rows that are not there");
    return (struct mat){(uint16_t *)offloaded.all.at + first * COLUMNS, rows, COLUMNS, COLUMNS,
                        DTYPE_BF16};
}

static void store(struct device *d, struct offloaded offloaded, uint64_t first, struct mat rows)
{
    (void)d;
    (void)offloaded;
    (void)first;
    (void)rows;
}

static void write_rows(struct device *d, struct mat m, const void *data)
{
    (void)d;
    memcpy(m.at, data, (size_t)(m.rows * m.cols) * sizeof(uint16_t));
}

static void read_rows(struct device *d, void *data, struct mat m)
{
    (void)d;
    memcpy(data, m.at, (size_t)(m.rows * m.cols) * sizeof(uint16_t));
}

/* ---- readers ---- */

struct given {
    int folder;
    json_t *config;
    uint16_t hidden[ROWS * COLUMNS];
    uint64_t start[SAMPLES + 1];
    struct tokens tokens;
    struct device device;
    struct network network;
    struct forward run;
};

static void begin(struct given *g)
{
    const uint64_t start[] = {0, LENGTH, ROWS};
    memcpy(g->start, start, sizeof start);
    g->tokens = (struct tokens){.samples = SAMPLES, .length = LENGTH, .start = g->start};
    memcpy(g->tokens.digest, digits, sizeof digits);
    g->device =
        (struct device){.fetch = fetch, .store = store, .write = write_rows, .read = read_rows};
    g->network = (struct network){
        .config.json = g->config, .dim = DIM, .copies = 1, .carried = CARRIED, .layers = 2};
    g->run = (struct forward){.network = &g->network,
                              .device = &g->device,
                              .tokens = &g->tokens,
                              .mtp = true,
                              .last = 1,
                              .arithmetic = ARITHMETIC_CALIBRATION};
}

static struct states hidden_after(struct given *g, uint64_t layer)
{
    struct mat all = {g->hidden, ROWS, COLUMNS, COLUMNS, DTYPE_BF16};
    return (struct states){layer, {all, false}, digits};
}

/* Scalars, which amax-calib writes to its output. */
static void check_records(const struct scalars *scalars)
{
    const struct toc *toc = scalars->toc;
    for (size_t i = 0; i < toc->count; i++)
        fuzz_must(!toc->tensor[i].rank && toc->tensor[i].size <= sizeof *scalars->value,
                  "a record that is no scalar");
}

/* calibration.ts; there are no chunks. */
static void read_records(void *context)
{
    static char file[] = ENTRIES_PATH;
    struct given *g = context;
    struct resume resume = {.folder = ".", .fd = g->folder, .file = file, .keeping.never = true};
    struct scalars scalars;
    begin(g);
    memcpy(resume.options, digits, sizeof digits);
    scalars_begin(&scalars, "amax.safetensors");
    fuzz_must(resume_load(&resume, &g->run, &scalars), "nothing kept");
    fuzz_must(g->run.first <= g->run.repeated && g->run.repeated <= g->run.last + 1,
              "a layer that is not there");
    fuzz_must(resume.ahead == 0 && g->run.lagging == 0, "a chunk that is not there");
    check_records(&scalars);
    scalars_free(&scalars);
    const struct states states = hidden_after(g, g->run.first - 1);
    resume_states(&resume, &g->run, &states);
    kept_end(&resume.kept);
}

/* The second chunk after layer 1: a link to the input. */
static void read_chunk(void *context)
{
    struct given *g = context;
    struct kept kept;
    struct level level = {.layer = 1};
    begin(g);
    memcpy(level.weights, digits, sizeof digits);
    kept_begin(&kept, &g->run, fuzz_folder(), g->folder, digits);
    fuzz_must(kept.chunks == SAMPLES, "another chunk");
    kept_load(&kept, 1, &level, hidden_after(g, 1).hidden);
    kept_end(&kept);
}

static void read_states(void *context)
{
    struct given *g = context;
    begin(g);
    g->run.states_in = ENTRIES_PATH;
    const struct states states = hidden_after(g, 1);
    states_load(&g->run, &states);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct given given = {.folder = -1};
    if (given.folder < 0) {
        given.folder = open(fuzz_folder(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        fuzz_must(given.folder >= 0 && !symlinkat(ENTRIES_PATH, given.folder, "calibration.ts") &&
                      !symlinkat(ENTRIES_PATH, given.folder, "calibration.0001.1.ts"),
                  "no folder");
        given.config = json_object();
    }
    entries_set(data, size);
    fuzz_survives(read_records, &given);
    fuzz_survives(read_chunk, &given);
    fuzz_survives(read_states, &given);
    return 0;
}
