#include "base/status.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/number.h"

/* Of a pipe's 64 KiB. The rest is left for the script, whose shells must never wait. */
enum { UNREAD_MOST = 16 << 10, PATH_ROOM = 64 };

int status_open(void)
{
    const char *text = getenv("SEEKPIPE_STATUS");
    uint64_t number;
    char path[PATH_ROOM], target[PATH_ROOM];
    if (!text || !number_parse(&text, INT32_MAX, &number) || *text != ':')
        return -1;
    snprintf(path, sizeof path, "/proc/self/fd/%d", (int)number);
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length < 0)
        return -1;
    target[length] = 0;
    if (strncmp(target, "pipe:", 5) != 0 || strcmp(target, text + 1) != 0)
        return -1;
    /* For reading, too: where nobody reads any more, it is full, but writing is no SIGPIPE. */
    return open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
}

void status_send(int fd, const char *line)
{
    char text[STATUS_LINE + 1]; /* one write of less than PIPE_BUF: lines do not mix */
    int unread, length = snprintf(text, sizeof text, "%s\n", line);
    if (fd < 0 || length < 0 || length >= (int)sizeof text)
        return;
    if (ioctl(fd, FIONREAD, &unread) || unread > UNREAD_MOST)
        return;
    if (write(fd, text, (size_t)length) < 0)
        return; /* dropped */
}

void status_say(const char *message)
{
    int saved = errno, fd = status_open();
    if (fd < 0) {
        errno = saved;
        return;
    }
    json_t *line =
        json_pack("{s:s, s:s}", "program", program_invocation_short_name, "message", message);
    char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
    if (text)
        status_send(fd, text);
    free(text);
    json_decref(line);
    close(fd);
    errno = saved;
}

bool status_draws(void)
{
    const char *term = getenv("TERM"), *text = getenv("SEEKPIPE_TERMINAL");
    uint64_t leader;
    pid_t group = getpgrp();
    if (text && number_parse(&text, INT32_MAX, &leader) && !*text)
        group = getpgid((pid_t)leader);
    return isatty(STDERR_FILENO) && term && *term && strcmp(term, "dumb") != 0 &&
           tcgetpgrp(STDERR_FILENO) == group;
}

const char *status_eraser(void)
{
    int saved = errno, fd = status_draws() ? status_open() : -1;
    if (fd >= 0)
        close(fd);
    errno = saved;
    return fd < 0 ? "" : "\r\033[J";
}
