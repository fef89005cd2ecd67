/* examples/relay_message.h: what the relay knows of HTTP: a request, parsed where it lies; a reply, framed
 * anew.
 *
 * Hop-by-hop headers end at the relay (RFC 9110, 7.6.1). Thread: any; nothing is shared. */
#ifndef RELAY_MESSAGE_H
#define RELAY_MESSAGE_H

#include <corepool.h>
#include <http_parser.h>

#define RELAY_HEADERS_MAX 100

/* Strings and body are pieces of the input. */
struct relay_request {
    corepool_http_request_t http; /* ready for corepool_http_perform_async */
    bool keep_alive;
    http_parser parser;
    bool complete;
    unsigned count;
    corepool_http_header_t headers[RELAY_HEADERS_MAX];
};

/* Parses from the start of `input`, which it writes to once the request is complete. Returns the request's
 * length; 0: more must come; -1: bad, or with a transfer encoding, which the relay does not take. */
long relay_parse(struct relay_request *request, char *input, size_t length);

/* Room that relay_format needs. */
size_t relay_format_room(const corepool_http_response_t *response);

/* Writes the reply to `request` with a Content-Length as its only framing; returns its length. */
size_t relay_format(char *output, const struct relay_request *request,
                    const corepool_http_response_t *response);

#endif
