#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/json.h"
#include "base/memory.h"
#include "text/template.h"
#include "text/template_format.h"

#include <stdlib.h>
#include <string.h>

static const char *const specials[] = {"<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>",
                                       "<|end_header_id|>", "<end_of_turn>", "<|end|>", "<think>", "</think>"};
static sw_tokenizer *tokenizer;
static sw_encoder *encoder;

/* A byte-level tokenizer without merges: one token a byte, and the special tokens. */
static int make_tokenizer(void **state)
{
    (void)state;
    sw_buf b = {0}, name = {0};
    int other = 0;
    sw_buf_puts(&b, "{\"version\":\"1.0\",\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":false,"
                    "\"use_regex\":false},\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{");
    for (int i = 0; i < 256; i++) {
        char c[4];
        bool plain = (i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174;
        sw_buf_clear(&name);
        sw_buf_add(&name, c, (size_t)sw_utf8_encode(plain ? (uint32_t)i : (uint32_t)(256 + other++), c));
        sw_buf_puts(&b, i ? "," : "");
        sw_buf_json(&b, name.at, name.n);
        sw_buf_printf(&b, ":%d", i);
    }
    sw_buf_puts(&b, "},\"merges\":[]},\"added_tokens\":[");
    for (size_t i = 0; i < sizeof specials / sizeof *specials; i++)
        sw_buf_printf(&b, "%s{\"id\":%zu,\"content\":\"%s\",\"special\":%s,\"normalized\":false,\"single_word\":false,\"lstrip\":false,"
                          "\"rstrip\":false}", i ? "," : "", 256 + i, specials[i], strstr(specials[i], "think") ? "false" : "true");
    sw_buf_puts(&b, "]}");
    const char *config = "{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\"}";
    tokenizer = sw_tokenizer_from_json(b.at, b.n, config, strlen(config));
    if (!tokenizer)
        print_error("%s\n", sw_error());
    else
        encoder = sw_encoder_new(tokenizer);
    sw_buf_free(&b);
    sw_buf_free(&name);
    return tokenizer ? 0 : -1;
}

static int free_tokenizer(void **state)
{
    (void)state;
    sw_encoder_free(encoder);
    sw_tokenizer_free(tokenizer);
    return 0;
}

static sw_template *load(const char *source, bool text)
{
    sw_template *m = text ? sw_template_from_text(tokenizer, "test", source, strlen(source)) : sw_template_load(tokenizer, source);
    if (!m)
        fail_msg("%s", sw_error());
    return m;
}

/* The labelled parts of the conversation, each in [ ]; or "! message". */
static char *labelled(const sw_template *m, const char *messages, sw_train_on train_on)
{
    cJSON *v = sw_json_parse(messages, strlen(messages));
    assert_non_null(v);
    sw_ids ids = {0};
    sw_weights w = {0};
    sw_buf out = {0};
    if (sw_template_encode(m, encoder, v, NULL, NULL, train_on, NULL, &ids, &w)) {
        sw_buf_printf(&out, "! %s", sw_error());
        assert_int_equal(ids.n, 0);
        assert_int_equal(w.n, 0);
    } else {
        assert_int_equal(ids.n, w.n);
    }
    for (size_t i = 0; i < ids.n; i++) {
        if (w.at[i] != 0 && (!i || w.at[i - 1] == 0))
            sw_buf_putc(&out, '[');
        if (w.at[i] != 0 && sw_decode(tokenizer, &ids.at[i], 1, false, &out))
            fail_msg("%s", sw_error());
        if (w.at[i] != 0 && (i + 1 == ids.n || w.at[i + 1] == 0))
            sw_buf_putc(&out, ']');
    }
    sw_buf_putc(&out, 0);
    cJSON_Delete(v);
    free(ids.at);
    free(w.at);
    return sw_buf_take(&out);
}

static void expect(const sw_template *m, const char *messages, sw_train_on train_on, const char *due)
{
    char *got = labelled(m, messages, train_on);
    assert_string_equal(got, due);
    free(got);
}

#define U(text) "{\"role\":\"user\",\"content\":\"" text "\"}"
#define A(text) "{\"role\":\"assistant\",\"content\":\"" text "\"}"
#define S(text) "{\"role\":\"system\",\"content\":\"" text "\"}"

static void end_tokens(void **state)
{
    (void)state;
    static const char *const due[][2] = {{"chatml", "<|im_end|>"}, {"llama3", "<|eot_id|>"}, {"llama2", "</s>"}, {"mistral", "</s>"},
                                         {"gemma", "<end_of_turn>"}, {"phi3", "<|end|>"}, {"zephyr", "</s>"}, {"plain", "</s>"}};
    for (size_t i = 0; i < sizeof due / sizeof *due; i++) {
        sw_template *m = load(due[i][0], false);
        assert_int_equal(sw_template_end_token(m), sw_token_id(tokenizer, due[i][1], strlen(due[i][1])));
        char *got = labelled(m, "[" U("q") "," A("a") "," U("r") "," A("b") "]", SW_TRAIN_ASSISTANT);
        assert_non_null(strstr(got, due[i][1])); /* each answer carries its end */
        char *first = strstr(got, "a"), *second = strstr(got, "b");
        assert_true(first && second && !strncmp(strchr(first, '<'), due[i][1], strlen(due[i][1])));
        assert_true(!strncmp(strchr(second, '<'), due[i][1], strlen(due[i][1])));
        assert_null(strstr(got, "q"));
        assert_null(strstr(got, "r<"));
        free(got);
        sw_template_free(m);
    }
    sw_template *none = load("{% for m in messages %}{{ m.content }}\n{% endfor %}", true);
    assert_int_equal(sw_template_end_token(none), -1);
    expect(none, "[" U("q") "," A("ab") "]", SW_TRAIN_ASSISTANT, "[ab\n]");
    sw_template_free(none);
}

static void labels(void **state)
{
    (void)state;
    sw_template *m = load("chatml", false);
    expect(m, "[" S("s") "," U("q") "," A("one") "," U("r") "," A("two\\n") "]", SW_TRAIN_ASSISTANT, "[one<|im_end|>\n][two\n<|im_end|>\n]");
    expect(m, "[" U("q") "," A("one") "," U("r") "," A("two") "]", SW_TRAIN_LAST, "[two<|im_end|>\n]");
    expect(m, "[" U("q") "," A("") "]", SW_TRAIN_ASSISTANT, "[<|im_end|>\n]");
    expect(m, "[" U("q") "]", SW_TRAIN_ASSISTANT, "");
    expect(m, "[" A("first") "," U("q") "]", SW_TRAIN_ASSISTANT, "[first<|im_end|>\n]");
    expect(m, "[" U("q") ",{\"role\":\"assistant\",\"content\":\"x\",\"loss\":false}," U("r") "," A("y") "]", SW_TRAIN_ASSISTANT,
           "[y<|im_end|>\n]");
    expect(m, "[" U("q") ",{\"role\":\"assistant\",\"content\":\"x\",\"loss\":true}," U("r") "," A("y") "," A("z") "]", SW_TRAIN_LAST,
           "[x<|im_end|>\n][yz<|im_end|>\n]");
    expect(m, "[" U("q") ",{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"p\"},{\"type\":\"text\",\"text\":\"q\"}]}]",
           SW_TRAIN_ASSISTANT, "[pq<|im_end|>\n]");
    expect(m, "[" U("q") "," A("a") "]", SW_TRAIN_ALL,
           "[user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n]");
    char *got = labelled(m, "[" U("q") ",{\"role\":\"assistant\",\"content\":\"x\",\"loss_scale\":-1}]", SW_TRAIN_ASSISTANT);
    assert_non_null(strstr(got, "message 2: loss_scale"));
    free(got);
    sw_template_free(m);
}

static void scaled(void **state)
{
    (void)state;
    sw_template *m = load("chatml", false);
    const char *text = "[" U("q") ",{\"role\":\"assistant\",\"content\":\"x\",\"loss_scale\":0.25}," U("r") "," A("y") "]";
    cJSON *v = sw_json_parse(text, strlen(text));
    sw_ids ids = {0};
    sw_weights w = {0};
    float sum = 0;
    assert_int_equal(sw_template_encode(m, encoder, v, NULL, NULL, SW_TRAIN_ASSISTANT, NULL, &ids, &w), 0);
    for (size_t i = 0; i < w.n; i++)
        sum += w.at[i];
    assert_true(sum == 3 * 0.25f + 3);
    cJSON_Delete(v);
    free(ids.at);
    free(w.at);
    sw_template_free(m);
}

/* Generation blocks say themselves what is trained on. */
static void blocks(void **state)
{
    (void)state;
    sw_template *m = load("{% for m in messages %}{% if m.role == 'assistant' %}A:{% generation %}{{ m.content }}</s>{% endgeneration %}\n"
                          "{% else %}U:{{ m.content }}\n{% endif %}{% endfor %}", true);
    expect(m, "[" U("q") "," A("one") "," U("r") "," A("two") "]", SW_TRAIN_ASSISTANT, "[one</s>][two</s>]");
    expect(m, "[" U("q") "," A("one") "," U("r") "," A("two") "]", SW_TRAIN_LAST, "[two</s>]");
    expect(m, "[" U("q") ",{\"role\":\"assistant\",\"content\":\"x\",\"loss\":false}," A("y") "]", SW_TRAIN_ASSISTANT, "[y</s>]");
    sw_template_free(m);
}

/* Prompts that end in <think>, and thoughts that earlier turns lose. */
static void thinking(void **state)
{
    (void)state;
    sw_template *m = load("{% for m in messages %}<|im_start|>{{ m.role }}\n"
                          "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
                          "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
                          true);
    expect(m, "[" U("q") "," A("one") "," U("r") "," A("<b>two") "]", SW_TRAIN_ASSISTANT,
           "[one<|im_end|>][\n</think>\n\n<b>two<|im_end|>]");
    expect(m, "[" U("q") "," A("<two") "," U("r") "]", SW_TRAIN_ASSISTANT, "[<two<|im_end|>]");
    sw_template_free(m);
}

static void refusals(void **state)
{
    (void)state;
    sw_template *m = load("{{ messages|length }}{% for m in messages %}{{ m.content }}</s>{% endfor %}", true);
    expect(m, "[" U("q") "," A("a") "," U("r") "]", SW_TRAIN_ASSISTANT, "[a</s>]"); /* told by changing the answer */
    char *got = labelled(m, "[" U("q") "," A("") "," U("r") "]", SW_TRAIN_ASSISTANT);
    assert_non_null(strstr(got, "message 2: "));
    free(got);
    sw_template_free(m);
    m = load("mistral", false);
    got = labelled(m, "[" U("q") ",{\"role\":\"critic\",\"content\":\"x\"}]", SW_TRAIN_ASSISTANT);
    assert_non_null(strstr(got, "no role critic"));
    free(got);
    sw_template_free(m);
    assert_null(sw_template_load(tokenizer, "no-such-template"));
    assert_non_null(strstr(sw_error(), "chatml"));
    assert_null(sw_template_load(tokenizer, NULL));
    assert_null(sw_template_from_text(tokenizer, "mine", "{% if %}", 8));
    assert_non_null(strstr(sw_error(), "chat template mine: line 1"));
}

static void prompt(void **state)
{
    (void)state;
    sw_template *m = load("llama2", false);
    cJSON *v = sw_json_parse("[" U(" q ") "]", strlen("[" U(" q ") "]"));
    sw_ids ids = {0};
    sw_buf text = {0};
    assert_int_equal(sw_template_encode_prompt(m, encoder, v, NULL, NULL, &ids), 0);
    assert_int_equal(sw_decode(tokenizer, ids.at, ids.n, false, &text), 0);
    assert_string_equal(text.at, "<s>[INST]  q  [/INST]");
    assert_int_equal(ids.at[0], sw_tokenizer_bos(tokenizer)); /* written by the template, and not twice */
    assert_int_not_equal(ids.at[1], ids.at[0]);
    cJSON_Delete(v);
    free(ids.at);
    sw_buf_free(&text);
    sw_template_free(m);
}

static void rendering_has(const char *format, const char *messages, const char *extra, const char *part)
{
    sw_template *m = load(format, false);
    cJSON *v = sw_json_parse(messages, strlen(messages)), *more = sw_json_parse(extra, strlen(extra));
    sw_buf text = {0};
    assert_int_equal(sw_template_render(m, v, NULL, more, false, &text, NULL), 0);
    if (!strstr(text.at, part))
        fail_msg("%s: '%s' has no '%s'", format, text.at, part);
    cJSON_Delete(v);
    cJSON_Delete(more);
    sw_buf_free(&text);
    sw_template_free(m);
}

/* What formats do beside their pieces, where it depends on the day or on a variable of the conversation. */
static void hooks(void **state)
{
    (void)state;
    const char *talk = "[" S("Be.") "," U("q") "," A("a") "]";
    rendering_has("gpt_oss", talk, "{}", "\n\nReasoning: medium\n\n# Valid channels: analysis, commentary, final. Channel must be included for "
                  "every message.<|end|><|start|>developer<|message|># Instructions\n\nBe.<|end|><|start|>user<|message|>q<|end|>"
                  "<|start|>assistant<|channel|>final<|message|>a<|return|>");
    rendering_has("gpt_oss", "[" U("q") "," A("<|channel|>analysis<|message|>h") "]", "{}", "message.<|end|><|start|>user<|message|>q<|end|>"
                  "<|start|>assistant<|channel|>analysis<|message|>h<|return|>");
    rendering_has("muse_glimmer", talk, "{}", "<|start|>system<|message|>Be.\n\nReasoning strength: high.\n\n# Valid recipients: \"self\", "
                  "\"user\".<|eot|><|start|>user<|message|>q<|eot|><|start|>assistant to=user<|message|>a<|eot|>");
    rendering_has("qwen3_8", talk, "{\"reasoning_effort\":\"low\"}", "system\nReasoning effort is set to low. Keep your thinking brief");
    rendering_has("qwen3_8", talk, "{\"enable_thinking\":false}", "<|im_start|>system\nBe.<|im_end|>");
    rendering_has("deepseek_v4", talk, "{\"reasoning_effort\":\"max\"}", "left unchecked.\n\nBe.");
    rendering_has("hy_v3", talk, "{\"reasoning_effort\":\"low\"}", "Be.<｜reasoning_mode:opensource｜>reasoning_effort:low<｜hy_User:opensource｜>");
    rendering_has("hunyuan", "[" U("q") "," A("<think>\nh\n</think>\n<answer>\nyes\n</answer>") "," U("r") "," A("a") "]", "{}", "<｜hy_Assistant｜>yes<｜hy_place");
    /* a token a byte: the longer of the thoughts has 601, of which the budget is the next step */
    sw_buf long_talk = {0};
    sw_buf_puts(&long_talk, "[" S("Be.") "," U("q") "," A("<think>h</think>a") "," U("r") ",{\"role\":\"assistant\",\"content\":\"<think>");
    for (int i = 0; i < 601; i++)
        sw_buf_putc(&long_talk, 'x');
    sw_buf_puts(&long_talk, "</think>b\"}]");
    rendering_has("seed_oss", long_talk.at, "{}", "Be.<seed:eos><seed:bos>system\nYou are an intelligent assistant with reflective ability");
    rendering_has("seed_oss", long_talk.at, "{}", "thinking budget, which is 1024. That");
    rendering_has("seed_oss", long_talk.at, "{}", "every 256 tokens");
    rendering_has("seed_oss", long_talk.at, "{}", "assistant\n<seed:think>h</seed:think>a<seed:eos>");
    rendering_has("seed_oss", talk, "{\"thinking_budget\":20000}", "which is 20000. That");
    rendering_has("seed_oss", talk, "{\"thinking_budget\":100}", "assistant\n<seed:think></seed:think>a<seed:eos>");
    rendering_has("seed_oss", talk, "{\"thinking_budget\":-1}", "system\nBe.<seed:eos><seed:bos>user\nq<seed:eos><seed:bos>assistant\na<seed:eos>");
    sw_buf_free(&long_talk);
    rendering_has("minimax_m3_vl", "[" U("q") "," A("<mm:think>h</mm:think>a") "]", "{\"thinking_mode\":\"adaptive\"}", "mode: adaptive. You are");
    rendering_has("minimax_m3_vl", talk, "{}", "process.\n</thinking_instructions>[e~[\n]~b]developer\nBe.[e~[\n]~b]user\nq[e~[\n]~b]ai\n</mm:think>a[e~[");
    rendering_has("youtu_llm", "[" U("q") "," A("<think>h</think>a") "," U("r") ",{\"role\":\"assistant\",\"content\":\"<think>i</think>b\"},"
                  "{\"role\":\"tool\",\"content\":\"t\"}," A("<think>j</think>c") "," U("s") "," A("d") "]", "{}",
                  "<|Assistant|>a<|end_of_text|><|User|>r<|Assistant|><think>i</think>b<|end_of_text|><|User|>");
    rendering_has("youtu_llm", "[" U("q") "," A("<think>h</think>a") "," U("r") ",{\"role\":\"assistant\",\"content\":\"<think>i</think>b\"},"
                  "{\"role\":\"tool\",\"content\":\"t\"}," A("<think>j</think>c") "," U("s") "," A("d") "]", "{}",
                  "<think>j</think>c<|end_of_text|><|User|>s<|Assistant|><think>\n\n</think>\n\nd");
    sw_template *m = load("gpt_oss", false);
    expect(m, talk, SW_TRAIN_ASSISTANT, "[<|channel|>final<|message|>a<|return|>]");
    sw_template_free(m);
}

/* The day before, over ends of months and years. */
static void yesterday(void **state)
{
    (void)state;
    static const struct {
        double now;
        const char *due;
    } days[] = {{1709294400, "2024-02-29"}, {1677672000, "2023-02-28"}, {1735732800, "2024-12-31"}, {1782907200, "2026-06-30"},
                {1785000000, "2026-07-24"}, {4107585600, "2100-02-28"}};
    const sw_template_part *part = sw_template_parts;
    while (strcmp(part->name, "hooks/mistral"))
        part++;
    char *source = sw_strfmt("%s{{ yesterday() }}", part->text);
    sw_jinja *j = sw_jinja_compile(source, strlen(source));
    cJSON *none = cJSON_CreateObject();
    assert_non_null(j);
    for (size_t i = 0; i < sizeof days / sizeof *days; i++) {
        sw_buf out = {0};
        assert_int_equal(sw_jinja_render(j, none, days[i].now, &out, NULL, NULL), 0);
        sw_buf_putc(&out, 0);
        assert_string_equal(out.at, days[i].due);
        sw_buf_free(&out);
    }
    cJSON_Delete(none);
    sw_jinja_free(j);
    free(source);
}

/* Without a template of its own, a checkpoint gets the first of its family's that its vocabulary knows. */
static void families(void **state)
{
    (void)state;
    sw_template *m = sw_template_choose(tokenizer, &(sw_template_choice){.family = "llama"});
    assert_non_null(m);
    assert_string_equal(sw_template_name(m), "llama3");
    sw_template_free(m);
    m = sw_template_choose(tokenizer, &(sw_template_choice){.family = "qwen2", .source = "llama2", .agent = "hermes"});
    assert_non_null(m);
    assert_string_equal(sw_template_name(m), "llama2"); /* what is asked for comes first */
    assert_string_equal(sw_template_agent(m)->name, "hermes");
    sw_template_free(m);
    assert_null(sw_template_choose(tokenizer, &(sw_template_choice){.family = "seed_oss"})); /* no <seed:eos> here */
    assert_null(sw_template_choose(tokenizer, &(sw_template_choice){.source = "chatml", .agent = "nope"}));
    assert_non_null(strstr(sw_error(), "react_en"));
}

/* A built-in format that was saved as a file is still what it was: how it writes calls, what ends an answer. */
static void saved(void **state)
{
    (void)state;
    sw_template *m = load("glm4", false), *again;
    again = sw_template_from_text(tokenizer, "saved", sw_template_text(m), strlen(sw_template_text(m)));
    assert_non_null(again);
    assert_string_equal(sw_template_agent(again)->name, "glm4");
    const char *const *stop = sw_template_stops(again);
    assert_string_equal(stop[0], "<|user|>");
    assert_string_equal(stop[1], "<|endoftext|>");
    char *a = labelled(m, "[" U("q") "," A("one") "," U("r") "," A("two") "]", SW_TRAIN_ASSISTANT);
    char *b = labelled(again, "[" U("q") "," A("one") "," U("r") "," A("two") "]", SW_TRAIN_ASSISTANT);
    assert_string_equal(a, "[one<|user|>][two<|user|>]"); /* the next turn's mark is what ends this one */
    assert_string_equal(a, b);
    free(a);
    free(b);
    sw_template_free(m);
    sw_template_free(again);
}

static void loss_scales(void **state)
{
    (void)state;
    sw_template *m[2] = {load("chatml", false), load("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}", true)};
    const char *text = "[" U("q") "," A("Thought: x\\nAction: f\\nObservation: 1") "," U("r") "," A("y") "]";
    char base;
    sw_loss_scale *scale = sw_loss_scale_load("react", &base);
    assert_non_null(scale);
    for (int k = 0; k < 2; k++) {
        cJSON *v = sw_json_parse(text, strlen(text));
        sw_ids ids = {0};
        sw_weights w = {0};
        sw_buf out = {0};
        assert_int_equal(sw_template_encode(m[k], encoder, v, NULL, NULL, SW_TRAIN_ASSISTANT, scale, &ids, &w), 0);
        for (size_t i = 0; i < ids.n; i++) {
            if (w.at[i] != (i ? w.at[i - 1] : 0))
                sw_buf_printf(&out, "|%g|", w.at[i]);
            if (w.at[i] != 0)
                assert_int_equal(sw_decode(tokenizer, &ids.at[i], 1, false, &out), 0);
        }
        assert_string_equal(out.at, k ? "|1|<|im_start|>assistant\nThought: x\n|2|Action: f\nObservation:|0||1|<|im_end|>|0|"
                                        "|1|<|im_start|>assistant\ny<|im_end|>|0|"
                                      : "|1|Thought: x\n|2|Action: f\nObservation:|0||1|<|im_end|>\n|0||1|y<|im_end|>\n");
        cJSON_Delete(v);
        free(ids.at);
        free(w.at);
        sw_buf_free(&out);
        sw_template_free(m[k]);
    }
    sw_loss_scale_free(scale);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(end_tokens), cmocka_unit_test(labels), cmocka_unit_test(scaled), cmocka_unit_test(blocks),
        cmocka_unit_test(thinking), cmocka_unit_test(refusals), cmocka_unit_test(prompt), cmocka_unit_test(hooks), cmocka_unit_test(yesterday),
        cmocka_unit_test(families), cmocka_unit_test(saved), cmocka_unit_test(loss_scales),
    };
    return cmocka_run_group_tests(tests, make_tokenizer, free_tokenizer);
}
