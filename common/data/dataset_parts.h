/* What the files that read formats of training data share. */
#ifndef SW_DATA_DATASET_PARTS_H
#define SW_DATA_DATASET_PARTS_H

#include "data/dataset.h"

/* The first of the names (NULL-terminated) that the row has, not null, or NULL. */
const char *dataset_present(const cJSON *row, const char *const *names);
/* Takes a member out of the row; NULL where it is not there, or name is NULL. */
cJSON *dataset_take(cJSON *row, const char *name);
/* A string, or the first of a list of strings; NULL for another kind, with the error. */
cJSON *dataset_take_text(cJSON *row, const char *name) SW_MUST_CHECK;
/* A list of objects, as conversations are. */
bool dataset_is_messages(const cJSON *v);

extern const char *const dataset_query_names[], *const dataset_conversation_names[];

/* dataset_prepare.c: o->map. */
void dataset_rename(const sw_dataset_options *o, cJSON *row);
/* Copies of the columns to hand on into s->carried. A prompt's reward may look at all of them; conversations go in as
 * they are used. */
void dataset_carry(const sw_dataset_options *o, const cJSON *row, sw_sample *s);
/* Preference pairs in which the prompt stands otherwise than in conversations (a transcript in both answers, or a list
 * of messages in front of both) become two conversations. */
void dataset_join_prompts(cJSON *row);

/* dataset_lists.c: texts that are compared with each other. */
bool dataset_is_lists(const cJSON *row);
int dataset_from_lists(const sw_dataset_options *o, cJSON *row, sw_sample *s) SW_MUST_CHECK;
/* Numbers of the row's label (one, a list, true or false; names of o->classes) into s->labels. must: it is an error
 * that there is none. */
int dataset_take_labels(cJSON *row, const char *name, bool must, const sw_dataset_options *o, sw_sample *s) SW_MUST_CHECK;

/* dataset_words.c: words that have a class each. */
bool dataset_is_tagged(const cJSON *row);
int dataset_from_tagged(cJSON *row, sw_sample *s) SW_MUST_CHECK;

/* dataset_media.c: pictures, sound and film. Takes the columns (images, videos, audios and their other names) out of
 * the row into s->media. */
int dataset_take_media(cJSON *row, sw_sample *s) SW_MUST_CHECK;
/* Takes media out of the parts of messages, which become tags of text. messages may be anything. */
int dataset_media_from_parts(cJSON *messages, sw_sample *s) SW_MUST_CHECK;
/* Makes the tags <image>, <video> and <audio> of the messages into parts, as many as there are media. */
int dataset_place_media(sw_sample *s) SW_MUST_CHECK;

#endif
