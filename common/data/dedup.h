/* Duplicates in a stream of records, found in bounded memory.
 *
 * Exact ones by a 128-bit hash. Near ones by MinHash (Broder, "On the resemblance and containment of documents", 1997):
 * a text is the set of its runs of 5 words, 112 hash functions give its signature, and texts are compared that agree in
 * one of 14 bands of 8 (Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, 3.4): of pairs with Jaccard similarity
 * s 1 - (1 - s^8)^14 are found: 0.6: 21 %, 0.7: 56 %, 0.8: 92 %, 0.9: 99.97 %. Those count as duplicates whose
 * estimated similarity (standard error at most 0.05) reaches the threshold.
 *
 * When the memory is full the older half of the records is forgotten, so that an endless stream can be read. */
#ifndef SW_DATA_DEDUP_H
#define SW_DATA_DEDUP_H

#include "base/strbuf.h"

enum { SW_PRINT_BANDS = 14, SW_PRINT_ROWS = 8 };

/* What is known of a record. */
typedef struct sw_print {
    uint64_t exact[2];
    uint64_t bands[SW_PRINT_BANDS];
    uint8_t sketch[SW_PRINT_BANDS * SW_PRINT_ROWS]; /* the lowest byte of each value of the signature */
} sw_print;

/* The near part, of a text of valid UTF-8. Words are runs of letters and digits, case ignored for ASCII; of other
 * scripts each character that is no ASCII counts as one. kind: texts of different kinds are never alike. */
void sw_print_text(sw_print *p, const char *text, size_t n, uint64_t kind);
void sw_print_exact(sw_print *p, const void *bytes, size_t n);

typedef struct sw_dedup sw_dedup;

/* near: also near duplicates, from this similarity (0..1) on. memory: bytes, at least a few records' worth. */
sw_dedup *sw_dedup_new(bool near, double threshold, size_t memory);
void sw_dedup_free(sw_dedup *d);
/* Whether the record is like one that was added before; otherwise adds it. */
bool sw_dedup_seen(sw_dedup *d, const sw_print *p);
int64_t sw_dedup_forgotten(const sw_dedup *d); /* records */

#endif
