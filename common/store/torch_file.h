/* Tensors of files that torch.save wrote: the zip format (torch 1.6 and later) and the one before it. The pickle in
 * them is read as data (store/pickle.h): a file that asks for anything but tensors and plain values is refused, naming
 * what it asks for. Sources: the layouts in torch/serialization.py and torch/_utils.py (_rebuild_tensor_v2, _v3,
 * _rebuild_parameter).
 *
 * Tensors lie in the mapped file. Those that cannot be used as they lie (strided views; at an odd place in files of the
 * old format) are copied when the file is opened, at most as many bytes as the file has. */
#ifndef SW_STORE_TORCH_FILE_H
#define SW_STORE_TORCH_FILE_H

#include "store/safetensors.h"

typedef struct sw_torch sw_torch;
sw_torch *sw_torch_open(const char *path) SW_MUST_CHECK;
sw_torch *sw_torch_from_bytes(const void *bytes, size_t n, const char *name) SW_MUST_CHECK; /* bytes must outlive it */
void sw_torch_close(sw_torch *t);
size_t sw_torch_count(const sw_torch *t);
const sw_entry *sw_torch_at(const sw_torch *t, size_t i); /* in the dict's order; tied tensors share their data */
const sw_entry *sw_torch_find(const sw_torch *t, const char *name); /* NULL: none (no error set) */

#endif
