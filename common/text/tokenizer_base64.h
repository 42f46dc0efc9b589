/* Base64 (RFC 4648), as tokenizer files hold bytes in. */
#ifndef SW_TEXT_TOKENIZER_BASE64_H
#define SW_TEXT_TOKENIZER_BASE64_H

#include "base/error.h"
#include "base/strbuf.h"

int sw_base64_decode(const char *s, size_t n, sw_buf *out) SW_MUST_CHECK; /* appends */
void sw_base64_encode(const void *bytes, size_t n, sw_buf *out);          /* appends */

#endif
