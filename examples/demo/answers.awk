# Answers side by side. Arguments: the questions (messages), then files of swift-infer with the same records in that order.
function field(line, name,    at, out, c) { # the string after the last "name": of a line, JSON's escapes undone
    at = match(line, "\"" name "\": \"[^\"]*")
    if (!at) return ""
    line = substr(line, at + length(name) + 5); out = ""
    while (line != "" && (c = substr(line, 1, 1)) != "\"") {
        if (c == "\\") { c = substr(line, 2, 1); line = substr(line, 2); if (c == "n" || c == "t") c = "\n" }
        out = out c; line = substr(line, 2)
    }
    return out
}
function fold(text, width, into,    n, i, words, count, lines, l, row) { # into[1..n]: text broken at spaces
    n = 0; lines = split(text, l, "\n")
    for (i = 1; i <= lines; i++) {
        row = ""; count = split(l[i], words, " ")
        for (w = 1; w <= count; w++) {
            if (row != "" && length(row) + 1 + length(words[w]) > width) { into[++n] = row; row = "" }
            row = row (row == "" ? "" : " ") words[w]
        }
        into[++n] = row
    }
    return n
}
FNR == 1 { file++; name[file] = FILENAME; sub(/\.answers$/, "", name[file]) }
{ text[file, FNR] = field($0, file == 1 ? "content" : "text"); records = FNR }
END {
    width = int((100 - 3 * (file - 2)) / (file - 1))
    for (r = 1; r <= records; r++) {
        printf "\n> %s\n\n", text[1, r]; rows = 0
        for (f = 2; f <= file; f++) {
            delete part; n = fold(text[f, r], width, part); if (n > rows) rows = n
            for (i = 1; i <= n; i++) cell[f, i] = part[i]
            size[f] = n
        }
        for (i = -1; i <= rows; i++) {
            line = ""
            for (f = 2; f <= file; f++) {
                c = i == -1 ? name[f] : i == 0 ? substr("--------------------------------------------------", 1, width) \
                    : i <= size[f] ? cell[f, i] : ""
                line = line sprintf("%-" width "s%s", c, f < file ? "   " : "")
            }
            sub(/ +$/, "", line); print line
        }
    }
}
