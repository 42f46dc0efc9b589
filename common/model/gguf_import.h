/* GGUF files of every family that gguf_kinds.c describes, read as folders of the hub are. */
#ifndef SW_MODEL_GGUF_IMPORT_H
#define SW_MODEL_GGUF_IMPORT_H

#include "model/family.h"
#include "store/checkpoint.h"

/* Gives c, which is a GGUF file, a configuration and the tensors of the hub's layout, and reads the spec. Tensors stay where
 * they lie in the file as far as their rows do. */
int sw_gguf_adopt(sw_checkpoint *c, sw_spec *s) SW_MUST_CHECK;

#endif
