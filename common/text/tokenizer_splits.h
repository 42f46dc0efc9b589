/* Expressions that cut words, shared by the readers whose files only name them. Private to common/text/. */
#ifndef SW_TEXT_TOKENIZER_SPLITS_H
#define SW_TEXT_TOKENIZER_SPLITS_H

#define SW_SPLIT_GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define SW_SPLIT_RAW_GPT2                                                                                              \
    "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+" /* the same, before bytes are    \
                                                                                         spelt */
#define SW_SPLIT_ANY_CASE "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SW_SPLIT_FRONT "[^\\r\\n\\p{L}\\p{N}]?"
#define SW_SPLIT_WHITE "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define SW_SPLIT_SYMBOLS " ?[^\\s\\p{L}\\p{N}]+"
#define SW_SPLIT_UPPERS "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define SW_SPLIT_LOWERS "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define SW_SPLIT_CASED(upper, lower, tail)                                                                             \
    SW_SPLIT_FRONT upper "*" lower "+" tail "|" SW_SPLIT_FRONT upper "+" lower "*" tail "|"
#define SW_SPLIT_CL100K(digits)                                                                                        \
    SW_SPLIT_ANY_CASE "|" SW_SPLIT_FRONT "\\p{L}+|" digits "|" SW_SPLIT_SYMBOLS "[\\r\\n]*" SW_SPLIT_WHITE
#define SW_SPLIT_O200K                                                                                                 \
    SW_SPLIT_CASED(SW_SPLIT_UPPERS, SW_SPLIT_LOWERS, SW_SPLIT_ANY_CASE "?")                                            \
    "\\p{N}{1,3}|" SW_SPLIT_SYMBOLS "[\\r\\n/]*" SW_SPLIT_WHITE
#define SW_SPLIT_NO_HAN(set) "[" set "&&[^\\p{Han}]]"
#define SW_SPLIT_KIMI                                                                                                  \
    "[\\p{Han}]+|" SW_SPLIT_CASED(SW_SPLIT_NO_HAN("\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"),                               \
                                  SW_SPLIT_NO_HAN("\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"),                                      \
                                  SW_SPLIT_ANY_CASE "?") "\\p{N}{1,3}|" SW_SPLIT_SYMBOLS "[\\r\\n]*" SW_SPLIT_WHITE
#define SW_SPLIT_QWEN35                                                                                                \
    SW_SPLIT_ANY_CASE "|" SW_SPLIT_FRONT "[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" SW_SPLIT_WHITE
#define SW_SPLIT_TEKKEN                                                                                                \
    SW_SPLIT_CASED(SW_SPLIT_UPPERS, SW_SPLIT_LOWERS, "") "\\p{N}|" SW_SPLIT_SYMBOLS "[\\r\\n/]*" SW_SPLIT_WHITE

#endif
