/* terminal-svg TIMING TYPESCRIPT [COLUMNS ROWS]: a recording of script(1) as an animated SVG, on
 * standard output: it plays without scripts, again and again, and shows the last screen where
 * nothing moves. Pauses are cut to a second and a half. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/die.h"
#include "base/json.h"
#include "base/utf8.h"

enum { COLUMNS_MAX = 200, LINES_MAX = 2000, ROW = 17, LEFT = 10, TOP = 24, PLAIN = -1 };
static const double pause_most = 1.5, redraw_least = 0.4, same_time = 0.1, rest = 6; /* seconds */

struct cell {
    uint32_t code;
    int colour; /* 0xRRGGBB, or PLAIN */
    int ground;
    bool bold;
};

/* What a line of the terminal showed from a time on. */
struct state {
    double from;
    char *text; /* the elements inside <text>; the caller frees it */
};

struct line {
    struct cell cell[COLUMNS_MAX];
    struct state *state;
    size_t states;
    bool changed;
};

/* The screen is the last `rows` lines; those above have scrolled away. */
struct terminal {
    struct line *line[LINES_MAX];
    size_t lines, columns, rows, row, column;
    struct cell pen;  /* `code` is not used */
    double *scrolled; /* when the screen moved to begin at line 1, 2, … */
    size_t top;
    double now;
};

/* ---- the terminal ---- */

static struct line *line_at(struct terminal *t, size_t row)
{
    while (t->lines <= row) {
        if (t->lines == LINES_MAX)
            die("the recording has more than %d lines", LINES_MAX);
        struct line *line = t->line[t->lines++] = xalloc(1, sizeof *line);
        for (size_t i = 0; i < COLUMNS_MAX; i++)
            line->cell[i] = (struct cell){' ', PLAIN, PLAIN, false};
    }
    for (; t->top + t->rows < t->lines; t->top++)
        t->scrolled[t->top] = t->now;
    return t->line[row];
}

static void erase(struct terminal *t, size_t row, size_t from, size_t to)
{
    struct line *line = line_at(t, row);
    for (size_t i = from; i < to; i++)
        line->cell[i] = (struct cell){' ', PLAIN, PLAIN, false};
    line->changed = true;
}

static void put(struct terminal *t, uint32_t code)
{
    if (t->column == t->columns) {
        t->column = 0;
        t->row++;
    }
    struct line *line = line_at(t, t->row);
    line->cell[t->column] = t->pen;
    line->cell[t->column++].code = code;
    line->changed = true;
}

/* The colours of xterm's 256. */
static int palette(int n)
{
    static const int first[] = {0x484f58, 0xff7b72, 0x3fb950, 0xd29922, 0x58a6ff, 0xbc8cff,
                                0x39c5cf, 0xb1bac4, 0x6e7681, 0xffa198, 0x56d364, 0xe3b341,
                                0x79c0ff, 0xd2a8ff, 0x56d4dd, 0xffffff};
    if (n < 16)
        return first[n & 15];
    if (n >= 232)
        return (8 + 10 * (n - 232)) * 0x10101;
    n -= 16;
    int red = n / 36, green = n / 6 % 6, blue = n % 6;
    return (red ? 55 + 40 * red : 0) << 16 | (green ? 55 + 40 * green : 0) << 8 |
           (blue ? 55 + 40 * blue : 0);
}

/* A colour after 38 or 48: 5;N or 2;R;G;B. Returns how many parameters it takes. */
static size_t wide_colour(const int *parameter, size_t left, int *colour)
{
    if (left >= 2 && parameter[0] == 5) {
        *colour = palette(parameter[1] & 255);
        return 2;
    }
    if (left >= 4 && parameter[0] == 2) {
        *colour = (parameter[1] & 255) << 16 | (parameter[2] & 255) << 8 | (parameter[3] & 255);
        return 4;
    }
    return left;
}

static void dress(struct cell *pen, const int *parameter, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int p = parameter[i];
        if (p == 0)
            *pen = (struct cell){0, PLAIN, PLAIN, false};
        else if (p == 1)
            pen->bold = true;
        else if (p == 2)
            pen->colour = palette(8);
        else if (p == 22)
            pen->bold = false;
        else if (p == 38 || p == 48)
            i += wide_colour(parameter + i + 1, count - i - 1,
                             p == 38 ? &pen->colour : &pen->ground);
        else if (p == 39 || p == 49)
            *(p == 39 ? &pen->colour : &pen->ground) = PLAIN;
        else if ((p >= 30 && p < 38) || (p >= 90 && p < 98))
            pen->colour = palette(p < 38 ? p - 30 : p - 82);
        else if ((p >= 40 && p < 48) || (p >= 100 && p < 108))
            pen->ground = palette(p < 48 ? p - 40 : p - 92);
    }
}

/* Carry out "ESC [ parameters final". */
static void control(struct terminal *t, char final, const int *parameter, size_t count)
{
    const size_t n = parameter[0] > 0 ? (size_t)parameter[0] : 1, by = at_most(n, LINES_MAX);
    if (final == 'A')
        t->row = t->row - t->top > by ? t->row - by : t->top;
    else if (final == 'B')
        t->row = at_most(t->row + by, t->top + t->rows - 1);
    else if (final == 'C')
        t->column = at_most(t->column + by, t->columns - 1);
    else if (final == 'D')
        t->column = t->column > by ? t->column - by : 0;
    else if (final == 'G')
        t->column = at_most(by, t->columns) - 1;
    else if (final == 'K')
        erase(t, t->row, parameter[0] ? 0 : t->column, parameter[0] == 1 ? t->column : t->columns);
    else if (final == 'J')
        for (size_t row = t->row; row < t->lines; row++)
            erase(t, row, row == t->row ? t->column : 0, t->columns);
    else if (final == 'm')
        dress(&t->pen, parameter, count);
}

/* An escape sequence; returns the number of bytes after ESC that it has. */
static size_t escape(struct terminal *t, const char *text, size_t left)
{
    int parameter[16] = {0};
    size_t count = 1, i = 1;
    if (!left || text[0] != '[')
        return left ? 1 : 0;
    for (; i < left && (unsigned char)text[i] < '@'; i++) {
        if (text[i] == ';' && count < 16)
            count++;
        else if (text[i] >= '0' && text[i] <= '9' && parameter[count - 1] < 1000000)
            parameter[count - 1] = parameter[count - 1] * 10 + text[i] - '0';
    }
    if (i == left)
        return left;
    control(t, text[i], parameter, count);
    return i + 1;
}

/* Show `size` bytes; characters and escape sequences are whole in them. */
static void show(struct terminal *t, const char *text, size_t size)
{
    for (size_t i = 0; i < size;) {
        bool valid;
        size_t step = utf8_step(text + i, size - i, &valid);
        if (text[i] == '\033')
            step = 1 + escape(t, text + i + 1, size - i - 1);
        else if (text[i] == '\r')
            t->column = 0;
        else if (text[i] == '\n')
            line_at(t, ++t->row);
        else if (text[i] == '\b')
            t->column -= t->column > 0;
        else if (text[i] == '\t')
            t->column = at_most((t->column | 7) + 1, t->columns - 1);
        else if (valid && (unsigned char)text[i] >= ' ')
            put(t, utf8_decode(text + i));
        i += step;
    }
}

/* ---- what it showed, and when ---- */

static void put_char(FILE *out, uint32_t code)
{
    char bytes[4];
    const char *entity = code == '<' ? "&lt;" : code == '>' ? "&gt;" : code == '&' ? "&amp;" : NULL;
    if (entity)
        fputs(entity, out);
    else
        fwrite(bytes, 1, utf8_put(code, bytes), out);
}

static bool same_dress(const struct cell *a, const struct cell *b)
{
    return a->colour == b->colour && a->ground == b->ground && a->bold == b->bold;
}

/* A line as it is now; the caller frees it. */
static char *drawn(const struct line *line, size_t columns)
{
    char *text = NULL;
    size_t size, end = columns;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        die("out of memory");
    while (end && line->cell[end - 1].code == ' ' && line->cell[end - 1].ground == PLAIN)
        end--;
    for (size_t i = 0; i < end;) {
        const struct cell *cell = &line->cell[i];
        const bool plain = cell->colour == PLAIN && cell->ground == PLAIN && !cell->bold;
        if (!plain)
            fputs("<tspan", out);
        if (cell->colour != PLAIN)
            fprintf(out, " fill=\"#%06x\"", (unsigned)cell->colour);
        else if (cell->ground != PLAIN)
            fprintf(out, " fill=\"#%06x\"", (unsigned)cell->ground); /* a block of that colour */
        if (cell->bold)
            fputs(" font-weight=\"bold\"", out);
        fputs(plain ? "" : ">", out);
        for (; i < end && same_dress(cell, &line->cell[i]); i++)
            put_char(out, cell->ground != PLAIN && line->cell[i].code == ' ' ? 0x2588
                                                                             : line->cell[i].code);
        fputs(plain ? "" : "</tspan>", out);
    }
    if (fclose(out))
        die("out of memory");
    return text;
}

/* Remember what changed. What is drawn again soon counts once, as it was last. */
static void look(struct terminal *t)
{
    for (size_t i = 0; i < t->lines; i++) {
        struct line *line = t->line[i];
        struct state *last = line->states ? &line->state[line->states - 1] : NULL;
        if (!line->changed)
            continue;
        line->changed = false;
        char *text = drawn(line, t->columns);
        if (last && t->now - last->from < redraw_least) {
            free(last->text);
            last->text = text;
        } else if (strcmp(last ? last->text : "", text) != 0) {
            line->state = xgrow(line->state, line->states + 1, sizeof *line->state);
            line->state[line->states++] = (struct state){t->now, text};
        } else {
            free(text);
        }
    }
}

/* ---- SVG ---- */

/* States that others replaced are shown for a while. */
static void write_passing(const struct line *line, size_t row)
{
    for (size_t i = 0; i + 1 < line->states; i++) {
        const struct state *state = &line->state[i];
        if (*state->text)
            printf("<text y=\"%zu\" visibility=\"hidden\">%s<set attributeName=\"visibility\" "
                   "to=\"visible\" begin=\"r.begin+%.1fs\" dur=\"%.1fs\"/></text>\n",
                   row * ROW, state->text, state->from, state[1].from - state->from);
    }
}

/* A line's last state, which stays; NULL if it is empty. */
static const struct state *lasting(const struct line *line)
{
    const struct state *state = line->states ? &line->state[line->states - 1] : NULL;
    return state && *state->text ? state : NULL;
}

/* What stays is hidden until it comes: lines that come at the same time together. */
static void write_lasting(const struct terminal *t)
{
    const struct state *first = NULL;
    for (size_t i = 0; i < t->lines; i++) {
        const struct state *state = lasting(t->line[i]);
        if (!state)
            continue;
        if (!first || state->from > first->from + same_time || state->from < first->from) {
            printf("%s<g><set attributeName=\"visibility\" to=\"hidden\" begin=\"r.begin\" "
                   "dur=\"%.1fs\"/>\n",
                   first ? "</g>" : "", state->from + same_time);
            first = state;
        }
        printf("<text y=\"%zu\">%s</text>\n", (i + 1) * ROW, state->text);
    }
    puts(first ? "</g>" : "");
}

/* True if the screen stayed for a while where the i-th movement brought it. */
static bool stayed(const struct terminal *t, size_t i)
{
    return i + 1 == t->top || t->scrolled[i + 1] > t->scrolled[i] + same_time;
}

static void write_scrolling(const struct terminal *t, double length)
{
    if (!t->top)
        return;
    fputs("<animateTransform attributeName=\"transform\" type=\"translate\" calcMode=\"discrete\" "
          "begin=\"r.begin\" values=\"0 0",
          stdout);
    for (size_t i = 0; i < t->top; i++)
        if (stayed(t, i))
            printf(";0 -%zu", (i + 1) * ROW);
    fputs("\" keyTimes=\"0", stdout);
    for (size_t i = 0; i < t->top; i++)
        if (stayed(t, i))
            printf(";%.4f", t->scrolled[i] / length);
    printf("\" dur=\"%.2fs\"/>\n", length);
}

static void write_svg(const struct terminal *t)
{
    const size_t width = LEFT * 2 + t->columns * 8, height = t->rows * ROW + TOP + LEFT;
    const double length = t->now + rest;
    printf(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" xml:space=\"preserve\" viewBox=\"0 0 %zu %zu\" "
        "width=\"%zu\" "
        "height=\"%zu\" role=\"img\">\n<title>A recording of a terminal</title>\n"
        "<style>text{white-space:pre;font:13.3px ui-monospace,\"DejaVu Sans "
        "Mono\",Menlo,Consolas,monospace;fill:#c9d1d9}</style>\n"
        "<rect width=\"100%%\" height=\"100%%\" rx=\"6\" fill=\"#0d1117\">"
        "<animate id=\"r\" attributeName=\"x\" values=\"0;0\" begin=\"0s;r.end\" "
        "dur=\"%.2fs\"/></rect>\n"
        "<svg x=\"%d\" y=\"%d\" width=\"%zu\" height=\"%zu\"><g transform=\"translate(0 -%zu)\">\n",
        width, height, width, height, length, LEFT, LEFT, width - 2 * LEFT, t->rows * ROW,
        t->top * ROW);
    write_scrolling(t, length);
    for (size_t i = 0; i < t->lines; i++)
        write_passing(t->line[i], i + 1);
    write_lasting(t);
    puts("</g></svg></svg>");
}

/* ---- the recording ---- */

/* A whole file, with its size; the caller frees it. */
static char *slurp(const char *path, size_t *size)
{
    char *text = NULL, piece[1 << 16];
    FILE *in = fopen(path, "r");
    *size = 0;
    if (!in)
        die_errno("%s", path);
    for (size_t got; (got = fread(piece, 1, sizeof piece, in)) > 0; *size += got) {
        text = xgrow(text, *size + got, 1);
        memcpy(text + *size, piece, got);
    }
    if (ferror(in))
        die_errno("%s", path);
    fclose(in);
    return text;
}

/* How much of the text is whole: no part of a character or of an escape sequence at its end. */
static size_t whole(const char *text, size_t size)
{
    for (size_t back = 1; back <= size && back < 32; back++) {
        const unsigned char byte = (unsigned char)text[size - back];
        if (byte == '\033') {
            size_t i = size - back + 1;
            if (i < size && text[i] != '[')
                return size;
            while (i < size && ((unsigned char)text[i] < '@' || text[i] == '['))
                i++;
            return i < size ? size : size - back;
        }
        if (back <= 3 && byte >= 0xc0)
            return (byte >= 0xf0 ? 4U : byte >= 0xe0 ? 3U : 2U) > back ? size - back : size;
    }
    return size;
}

static void play(struct terminal *t, FILE *timing, const char *text, size_t size)
{
    double delay;
    size_t count, done = 0, came = 0;
    while (fscanf(timing, "%lf %zu", &delay, &count) == 2) {
        t->now += delay < pause_most ? delay : pause_most;
        came = at_most(came + count, size);
        size_t ready = whole(text + done, came - done);
        show(t, text + done, ready);
        done += ready;
        look(t);
    }
}

static size_t number(const char *text, size_t most)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (*end || !value || value > most)
        die("'%s' is not a number from 1 to %zu", text, most);
    return value;
}

int main(int argc, char **argv)
{
    if (argc != 3 && argc != 5) {
        fputs("usage: terminal-svg timing typescript [columns rows]\n", stderr);
        return EXIT_USAGE;
    }
    struct terminal *t = xalloc(1, sizeof *t);
    t->columns = argc == 5 ? number(argv[3], COLUMNS_MAX) : 80;
    t->rows = argc == 5 ? number(argv[4], LINES_MAX) : 24;
    t->scrolled = xalloc(LINES_MAX, sizeof *t->scrolled);
    t->pen = (struct cell){0, PLAIN, PLAIN, false};
    size_t size;
    char *text = slurp(argv[2], &size);
    char *begin = size ? memchr(text, '\n', size) : NULL; /* script's own first line */
    FILE *timing = fopen(argv[1], "r");
    if (!timing)
        die_errno("%s", argv[1]);
    if (!begin)
        die("%s: no recording of script(1)", argv[2]);
    play(t, timing, begin + 1, size - (size_t)(begin + 1 - text));
    fclose(timing);
    write_svg(t);
    for (size_t i = 0; i < t->lines; i++) {
        for (size_t j = 0; j < t->line[i]->states; j++)
            free(t->line[i]->state[j].text);
        free(t->line[i]->state);
        free(t->line[i]);
    }
    free(t->scrolled);
    free(t);
    free(text);
    return fflush(stdout) ? EXIT_FAILED : 0;
}
