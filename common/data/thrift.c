#include "data/thrift.h"

enum { DEPTH_MAX = 32 };

static uint8_t byte(thrift *t)
{
    if (t->at == t->end) {
        t->bad = true;
        return 0;
    }
    return *t->at++;
}

static uint64_t varint(thrift *t)
{
    uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        uint8_t b = byte(t);
        v |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80))
            return v;
    }
    t->bad = true;
    return 0;
}

int64_t thrift_int(thrift *t)
{
    uint64_t v = varint(t);
    return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

thrift_type thrift_field(thrift *t, int *id)
{
    uint8_t b = byte(t);
    int type = b & 15;
    if (t->bad || !type)
        return THRIFT_STOP;
    *id = b >> 4 ? *id + (b >> 4) : (int)(int16_t)thrift_int(t);
    if (type > THRIFT_STRUCT)
        t->bad = true;
    return t->bad ? THRIFT_STOP : (thrift_type)type;
}

sw_span thrift_binary(thrift *t)
{
    uint64_t n = varint(t);
    if (t->bad || n > (uint64_t)(t->end - t->at)) {
        t->bad = true;
        return (sw_span){"", 0};
    }
    t->at += n;
    return (sw_span){(const char *)t->at - n, (size_t)n};
}

size_t thrift_list(thrift *t, thrift_type *type)
{
    uint8_t b = byte(t);
    uint64_t n = b >> 4 == 15 ? varint(t) : b >> 4;
    *type = (thrift_type)(b & 15);
    if (t->bad || *type > THRIFT_STRUCT || (n && *type == THRIFT_STOP) ||
        n > (uint64_t)(t->end - t->at)) { /* an item takes a byte at least */
        t->bad = true;
        return 0;
    }
    return (size_t)n;
}

static void skip(thrift *t, thrift_type type, bool in_list, int depth)
{
    if (depth > DEPTH_MAX)
        t->bad = true;
    if (t->bad)
        return;
    switch (type) {
    case THRIFT_TRUE:
    case THRIFT_FALSE: /* of a field the type is the value */
        if (in_list)
            byte(t);
        break;
    case THRIFT_BYTE: byte(t); break;
    case THRIFT_I16:
    case THRIFT_I32:
    case THRIFT_I64: varint(t); break;
    case THRIFT_DOUBLE:
        for (int i = 0; i < 8; i++)
            byte(t);
        break;
    case THRIFT_BINARY: thrift_binary(t); break;
    case THRIFT_LIST:
    case THRIFT_SET: {
        thrift_type of;
        for (size_t n = thrift_list(t, &of); n && !t->bad; n--)
            skip(t, of, true, depth + 1);
        break;
    }
    case THRIFT_MAP: {
        uint64_t n = varint(t);
        uint8_t types = n ? byte(t) : 0;
        for (; n && !t->bad; n--) {
            skip(t, (thrift_type)(types >> 4), true, depth + 1);
            skip(t, (thrift_type)(types & 15), true, depth + 1);
        }
        break;
    }
    case THRIFT_STRUCT: {
        int id = 0;
        for (thrift_type f; (f = thrift_field(t, &id));)
            skip(t, f, false, depth + 1);
        break;
    }
    default: t->bad = true;
    }
}

void thrift_skip(thrift *t, thrift_type type) { skip(t, type, false, 0); }
