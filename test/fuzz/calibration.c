/* The calibration that amax-calib --resume keeps: what is recorded so far, and the hidden states.
 */
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

/* ---- resuming ---- */

struct kept {
    struct resume resume;
    json_t *config;
};

/* Scalars, which amax-calib writes to its output. */
static void check_records(const struct scalars *scalars)
{
    const struct toc *toc = scalars->toc;
    for (size_t i = 0; i < toc->count; i++)
        fuzz_must(!toc->tensor[i].rank && toc->tensor[i].size <= sizeof *scalars->value,
                  "a record that is no scalar");
}

static void load_states(const struct forward *run)
{
    static uint16_t hidden[ROWS * COLUMNS];
    struct mat all = {hidden, ROWS, COLUMNS, COLUMNS, DTYPE_BF16};
    states_load(run, &(struct states){run->first - 1, {all, false}, digits});
}

static void resume(void *context)
{
    struct kept *kept = context;
    uint64_t start[] = {0, LENGTH, ROWS};
    struct tokens tokens = {.samples = SAMPLES, .length = LENGTH, .start = start};
    struct device device = {.fetch = fetch, .store = store, .write = write_rows, .read = read_rows};
    struct network network = {
        .config.json = kept->config, .dim = DIM, .copies = 1, .carried = CARRIED, .layers = 2};
    struct forward run = {.network = &network,
                          .device = &device,
                          .tokens = &tokens,
                          .mtp = true,
                          .last = 1,
                          .arithmetic = ARITHMETIC_CALIBRATION};
    struct scalars scalars;
    memcpy(tokens.digest, digits, sizeof digits);
    scalars_begin(&scalars, "amax.safetensors");
    fuzz_must(resume_load(&kept->resume, &run, &scalars), "nothing kept");
    fuzz_must(run.first <= run.last + 1, "a layer that is not there");
    check_records(&scalars);
    scalars_free(&scalars);
    load_states(&run);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char file[] = ENTRIES_PATH;
    static int folder = -1;
    static json_t *config;
    if (folder < 0) {
        folder = open(fuzz_folder(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        fuzz_must(folder >= 0 && !symlinkat(file, folder, "calibration.ts"), "no folder");
        config = json_object();
    }
    struct kept kept = {.resume = {.file = file, .folder = folder}, .config = config};
    memcpy(kept.resume.options, digits, sizeof digits);
    entries_set(data, size);
    fuzz_survives(resume, &kept);
    return 0;
}
