/* A handler in C: decodes the reading of a device, "dev-1,42.5,1678886400".
 *
 *   cc -O2 -o reading reading.c
 *   faas-worker --handler ./reading
 *
 * C has no JSON. The payload stays JSON text, as it stands between the quotes of the request line: a
 * comma is a comma there, but a quote is \" and a line's end is \n. Text that is copied into the
 * answer needs no care; a function that looks at other characters must know their escapes. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIGITS "0123456789"

/* The end of a whole number as JSON writes it, of up to 15 digits; NULL if text has none. */
static const char *skip_whole(const char *text) {
    size_t count = strspn(text, DIGITS);
    return count == 0 || count > 15 || (text[0] == '0' && count > 1) ? NULL : text + count;
}

/* The function: writes ,"result": or ,"error": with its JSON. */
static void handle(const char *payload, FILE *reply) {
    const char *value = strchr(payload, ',');
    if (value != NULL && value > payload) {
        value++;
        const char *end = skip_whole(value + (value[0] == '-'));
        if (end != NULL && end[0] == '.') {
            size_t count = strspn(end + 1, DIGITS);
            end = count == 0 || count > 15 ? NULL : end + 1 + count;
        }
        const char *rest = end != NULL && end[0] == ',' ? skip_whole(end + 1) : NULL;
        if (rest != NULL && rest[0] == '\0') {
            fprintf(reply, ",\"result\":{\"device\":\"%.*s\",\"value\":%.*s,\"timestamp\":%s}",
                    (int)(value - 1 - payload), payload, (int)(end - value), value, end + 1);
            return;
        }
    }
    fputs(",\"error\":{\"message\":\"expected device,value,timestamp\",\"status\":422}", reply);
}

/* ---- The loop, which needs no change ------------------------------------------------------------ */

int main(void) {
    char *line = NULL;
    size_t size = 0;
    ssize_t length;
    /* Ids are repeated, and each reply is flushed before the next request is read: the worker may
     * write requests ahead of time. */
    puts("{\"ready\":true,\"concurrency\":1}");
    fflush(stdout);
    while ((length = getline(&line, &size, stdin)) != -1) {
        /* The worker promises the order and the spacing of {"id":7,"payload":"..."}. */
        char *end = NULL;
        long long id = strncmp(line, "{\"id\":", 6) == 0 ? strtoll(line + 6, &end, 10) : 0;
        if (id == 0 || strncmp(end, ",\"payload\":\"", 12) != 0 || strcmp(line + length - 3, "\"}\n") != 0) {
            fputs("not a request line\n", stderr);
            return 1;
        }
        line[length - 3] = '\0';
        printf("{\"id\":%lld", id);
        handle(end + 12, stdout);
        puts("}");
        fflush(stdout);
    }
    free(line);
    return 0;
}
