/* What ranks read from sockets: hellos and answers, of whom nothing is known yet, and messages and
 * signs of life. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/hello.h"
#include "base/message.h"
#include "fuzz.h"

/* The first byte says who listens. */
enum { TO_RANK_0, TO_OTHER, MESSAGES, SIGNS, LISTENERS };
enum { RANKS = 4, ASKED = 8, SENT_MOST = 4096 };

/* The bytes of the input that have not come yet. */
struct input {
    const uint8_t *data;
    size_t size;
};

/* The next bytes arrive, some of at most `room`: as many as the first of them says, as a network
 * would cut them. */
static size_t arrive(struct input *input, void *to, size_t room)
{
    if (!input->size)
        return 0;
    size_t count = 1 + *input->data % 64;
    count = count < room ? count : room;
    count = count < input->size ? count : input->size;
    memcpy(to, input->data, count);
    input->data += count;
    input->size -= count;
    return count;
}

/* No input would have the right proof: it gets it where it says zeros. */
static void complete(struct heard *heard)
{
    static const unsigned char zeros[PROOF_SIZE];
    if (!memcmp(heard->proof, zeros, sizeof zeros))
        proof_make('1', &heard->seen, sizeof heard->seen, heard->proof);
}

static void talk_to_rank_0(struct input *input)
{
    struct heard heard = {0};
    struct answer answer;
    unsigned char proof[PROOF_SIZE];
    unsigned rank;
    enum channel channel;
    size_t room;
    enum hello_state state = HELLO_PART;
    while (state == HELLO_PART || state == HELLO_WHOLE) {
        void *to = hello_room(&heard, &room);
        fuzz_must(room, "nothing more to say, and not known");
        size_t count = arrive(input, to, room);
        if (!count)
            return;
        state = hello_take(&heard, count);
        if (state == HELLO_WHOLE)
            hello_answer(&heard, &answer);
    }
    if (state != HELLO_ALL)
        return;
    complete(&heard);
    fuzz_must(hello_is_answered(&heard.seen.hello, &answer, proof),
              "an answer that proves nothing");
    fuzz_must(hello_is_proven(&heard) == proof_equal(proof, heard.proof), "a proof of two minds");
    if (hello_is_of(&heard.seen.hello, RANKS, &rank, &channel))
        fuzz_must(rank && rank < RANKS, "a rank that is not there");
}

static void talk_to_other(struct input *input)
{
    static const unsigned char zeros[PROOF_SIZE];
    struct seen seen;
    struct answer answer = {0};
    unsigned char proof[PROOF_SIZE];
    hello_make(&seen.hello, RANKS, 1, CHANNEL_DATA);
    arrive(input, &answer, sizeof answer);
    memcpy(seen.nonce, answer.nonce, sizeof seen.nonce);
    bool right = !memcmp(answer.proof, zeros, sizeof zeros);
    if (right)
        proof_make('0', &seen, sizeof seen, answer.proof);
    fuzz_must(hello_is_answered(&seen.hello, &answer, proof) == right, "a wrong answer");
}

/* One of a known size and one of any, in turn, until the connection ends. */
static void receive(const struct input *input)
{
    int end[2];
    char data[ASKED], *any = data;
    size_t size = input->size < SENT_MOST ? input->size : SENT_MOST, got;
    fuzz_must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, end), "no sockets");
    fuzz_must(send(end[0], input->data, size, MSG_NOSIGNAL) == (ssize_t)size, "nothing sent");
    close(end[0]);
    while (any && message_receive(end[1], data, sizeof data) == MESSAGE_WHOLE) {
        any = message_receive_any(end[1], &got);
        fuzz_must(!any || got <= size, "more than was sent");
        free(any);
    }
    close(end[1]);
}

static void live(struct input *input)
{
    struct signs signs = {0};
    char bytes[64];
    for (size_t count; (count = arrive(input, bytes, sizeof bytes));)
        signs_take(&signs, bytes, count);
    fuzz_must(memchr(signs.reason, 0, sizeof signs.reason), "a reason without an end");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data + 1, size - 1};
    if (!size)
        return 0;
    setenv("SEEKPIPE_RANKS_SECRET", "secret", 0);
    switch (*data % LISTENERS) {
    case TO_RANK_0:
        talk_to_rank_0(&input);
        break;
    case TO_OTHER:
        talk_to_other(&input);
        break;
    case MESSAGES:
        receive(&input);
        break;
    default:
        live(&input);
    }
    return 0;
}
