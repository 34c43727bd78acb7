#!/usr/bin/env bats
# st-tokenize

load common
load craft

TEXT=$PWD/test/data/text
CHAT=$PWD/test/data/tokenizer/chat.jsonl
CHAT_V3=$PWD/test/data/tokenizer/chat-v3.jsonl
TEMPLATES=$PWD/test/data/tokenizer/templates.json

# tokenize ...: with the bundled checkpoint's tokenizer.
tokenize() {
    st-tokenize --tokenizer "$NANO" "$@"
}

# ids STREAM: one row a line, ids separated by spaces; then the lengths in a line.
ids() {
    local shape
    shape=$(bsdtar -xOf "$1" .toc | sed -n 's/^input_ids.*,\([0-9]*\)\].*/\1/p')
    bsdtar -xOf "$1" input_ids | od -An -v -t d4 -w$((4 * shape)) | sed 's/^ *//' | tr -s ' '
    bsdtar -xOf "$1" lengths | od -An -v -t d4 -w65536 | sed 's/^ */lengths /' | tr -s ' '
}

# same_ids STREAM FILE: input_ids of both are equal.
same_ids() {
    diff <(st-sum --each "$1" | grep -P '\tinput_ids\t') <(st-sum --each "$2")
}

# A text of one line, as JSON.
line() {
    jq -nc --arg text "$1" '{$text}'
}

# fails WORDS ...: st-tokenize exits 1 with one line that holds the words.
fails() {
    local words=$1
    shift
    run st-tokenize --tokenizer "$NANO" -o "$T/out" "$@"
    echo "$output"
    [ "$status" = 1 ]
    [ "${#lines[@]}" = 1 ]
    [[ $output == st-tokenize:* && $output == *"$words"* ]]
    [ ! -e "$T/out" ]
}

@test "the reference's ids for calibration and evaluation" {
    tokenize -q --length 256 --full --samples 24 "$TEXT"/calib-{prose,code}.jsonl >"$T/calib.ts"
    same_ids "$T/calib.ts" "$GOLDEN/calib-ids.safetensors"
    tokenize --length 256 --full --samples 32 "$TEXT/eval.jsonl" >"$T/eval.ts"
    same_ids "$T/eval.ts" "$GOLDEN/eval-ids.safetensors"
}

@test "the reference's ids of all fixtures" {
    fixtures v4-mini
    shared=$FIXTURES/..
    for model in v4-nano:256:24:32 v4-mini:384:12:32 v3-nano:320:12:16 v32-nano:320:12:16; do
        IFS=: read -r model length calib eval <<<"$model"
        made=$shared/$model/golden
        st-tokenize -q --tokenizer "$shared/$model/ckpt" --length "$length" --full \
            --samples "$calib" "$shared"/text/calib-{prose,code}.jsonl >"$T/calib.ts"
        same_ids "$T/calib.ts" "$made/calib-ids.safetensors"
        st-tokenize -q --tokenizer "$shared/$model/ckpt" --length "$length" --full \
            --samples "$eval" "$shared/text/eval.jsonl" >"$T/eval.ts"
        same_ids "$T/eval.ts" "$made/eval-ids.safetensors"
    done
}

@test "rows, lengths, padding" {
    { line 'Hello world' && line '' && echo && line ' Hello' && line a; } >"$T/a.jsonl"
    tokenize "$T/a.jsonl" >"$T/a.ts" 2>"$T/log"
    diff <(ids "$T/a.ts") - <<'END'
0 42 363 339 2515
0 554 363 339 1
0 67 1 1 1
lengths 5 4 2
END
    grep -q 'left out: 1 empty' "$T/log"
    tokenize -q --length 3 "$T/a.jsonl" >"$T/b.ts"
    diff <(ids "$T/b.ts") - <<'END'
0 42 363
0 554 363
0 67 1
lengths 3 3 2
END
    tokenize -q --no-bos --length 3 --full "$T/a.jsonl" >"$T/c.ts"
    diff <(ids "$T/c.ts") - <<'END'
42 363 339
554 363 339
lengths 3 3
END
}

@test "--pack: samples follow each other, files do not" {
    { line 'Hello world' && line '' && line a && line ' Hello'; } >"$T/a.jsonl"
    line a >"$T/b.jsonl"
    tokenize -q --pack --length 4 "$T/a.jsonl" "$T/b.jsonl" >"$T/a.ts"
    diff <(ids "$T/a.ts") - <<'END'
0 42 363 339
2515 0 67 0
554 363 339 1
0 67 1 1
lengths 4 4 3 2
END
    tokenize -q --pack --full --length 4 --samples 1 "$T/a.jsonl" >"$T/b.ts"
    diff <(ids "$T/b.ts") - <<'END'
0 42 363 339
lengths 4
END
}

@test "plain text: a long sample in rows" {
    printf 'Hello world Hello world' >"$T/a.txt"
    tokenize --length 4 "$T/a.txt" >"$T/a.ts"
    diff <(ids "$T/a.ts") - <<'END'
0 42 363 339
0 2515 554 363
0 339 2515 1
lengths 4 4 3
END
    tokenize --length 4 --pack "$T/a.txt" >"$T/b.ts"
    diff <(ids "$T/b.ts") - <<'END'
0 42 363 339
2515 554 363 339
2515 1 1 1
lengths 4 4 1
END
    tokenize --length 9 "$T/a.txt" >"$T/c.ts" # no row of a BOS alone behind it
    [ "$(ids "$T/c.ts" | tail -n 1)" = 'lengths 9' ]
    tokenize --format text --length 4 - <"$T/a.txt" | cmp <(bsdtar -xOf "$T/a.ts" input_ids) \
        <(bsdtar -xO input_ids)
}

@test "plain text that comes in pieces has the ids of the whole" {
    for _ in {1..60}; do jq -r .text "$TEXT/eval.jsonl"; done >"$T/a.txt"
    [ "$(stat -c %s "$T/a.txt")" -gt $((4 << 20)) ]
    tokenize --length 512 --no-bos "$T/a.txt" >"$T/a.ts"
    jq -Rs '{text: .}' "$T/a.txt" | jq -c . >"$T/a.jsonl"
    tokenize --length 512 --no-bos --pack "$T/a.jsonl" >"$T/b.ts"
    st-cmp -q "$T/a.ts" "$T/b.ts"
}

@test "--samples: one number, or one for each file; too few are named" {
    for name in a b c; do
        for i in 1 2 3; do line "$name $i"; done >"$T/$name.jsonl"
    done
    sources() { bsdtar -xOf "$T/s.ts" .stream | jq -c '.history[0].sources | map([.file, .samples])'; }
    tokenize --samples 2 "$T"/{a,b,c}.jsonl >"$T/s.ts"
    [ "$(sources)" = '[["a.jsonl",2],["b.jsonl",2],["c.jsonl",2]]' ]
    tokenize --samples 1,3 "$T"/{a,b,c}.jsonl >"$T/s.ts"
    [ "$(sources)" = '[["a.jsonl",1],["b.jsonl",3],["c.jsonl",3]]' ]
    run tokenize -o "$T/s.ts" --samples 2,9 "$T"/{a,b}.jsonl
    [ "$status" = 0 ]
    [ "$output" = "st-tokenize: $T/b.jsonl: 3 samples, wanted 9" ]
    run tokenize -o "$T/s.ts" --samples 1,2,3 "$T"/{a,b}.jsonl
    [ "$status" = 2 ]
}

@test "the stream says where it comes from" {
    line a >"$T/a.jsonl"
    tokenize --length 4 "$T/a.jsonl" >"$T/a.ts"
    sum=$(sha256sum "$NANO/tokenizer.json")
    [ "$(bsdtar -xOf "$T/a.ts" .stream | jq -r '.history[0].tokenizer')" = "${sum%% *}" ]
    [ "$(bsdtar -xOf "$T/a.ts" .stream | jq -c '.history[0].options')" = '["--length=4"]' ]
    [ "$(bsdtar -xOf "$T/a.ts" .end | jq -c '.counts[0]')" = \
        '{"samples":1,"tokens":2,"empty":0,"too_short":0,"program":"st-tokenize"}' ]
}

@test "-n writes the table only" {
    pipeline "st-tokenize -n --tokenizer '$NANO' --length 256 '$TEXT/eval.jsonl' | st-ls --tsv" >"$T/table"
    cut -f1-3 "$T/table" | grep -q $'^input_ids\tI32\t\\[32,256\\]'
}

@test "fields: the usual ones, one of another name, several" {
    texts() { tokenize "$@" | tokenize --decode | jq -r .text | tr '\n' '|'; }
    {
        echo '{"article": "x", "text": "a"}'
        echo '{"article": "b", "id": 1, "text": null}'
        echo '{"response": "r", "prompt": "p"}'
        echo '{"messages": [{"role": "user", "content": "c"}]}'
    } >"$T/a.jsonl"
    [ "$(texts "$T/a.jsonl")" = 'a|b|p|r|<｜User｜>c<｜Assistant｜></think>|' ]
    echo '{"x": "1", "y": "2", "text": "3"}' >"$T/b.jsonl"
    [ "$(texts --field y+x "$T/b.jsonl")" = '2|1|' ]
    [ "$(texts --field x "$T/b.jsonl")" = '1|' ]
    [ "$(texts --format jsonl --field x - <"$T/b.jsonl")" = '1|' ]
}

@test "conversations as the release of V4 encodes them" {
    tokenize "$CHAT" | tokenize --decode | jq -c .text >"$T/texts"
    diff "$T/texts" <(jq -c .golden "$CHAT")
}

# tokenizer_of STYLE [TEMPLATE]: $T/t is v4-nano's tokenizer with a V3's config.json and the chat template of a
# release, or this one; v3.2 has none.
tokenizer_of() {
    local type=deepseek_v3
    [ "$1" != v3.2 ] || type=deepseek_v32
    mkdir -p "$T/t"
    cp "$NANO/tokenizer.json" "$T/t"
    jq -nc --arg type $type '{model_type: $type}' >"$T/t/config.json"
    jq -c --arg style "$1" --arg template "${2-}" --slurpfile templates "$TEMPLATES" \
        '.chat_template = (if $template == "" then $templates[0][$style] else $template end)' \
        "$NANO/tokenizer_config.json" >"$T/t/tokenizer_config.json"
}

@test "conversations as the chat templates of V2.5, V3, R1 and V3.1 write them, and V3.2's encoder" {
    local style count=0
    for style in v2.5 v3 v3-0324 r1-first r1 r1-0528 v3.1 v3.1-terminus v3.2; do
        tokenizer_of $style
        jq -c --arg style $style '.golden |= with_entries(select(.key | split(",") | index($style))) |
            select(.golden != {})' "$CHAT_V3" >"$T/cases.jsonl"
        st-tokenize -q --tokenizer "$T/t" "$T/cases.jsonl" | st-tokenize --tokenizer "$T/t" --decode | jq -c .text >"$T/texts"
        diff "$T/texts" <(jq -c '.golden[]' "$T/cases.jsonl") || { echo "$style" && return 1; }
        count=$((count + $(wc -l <"$T/texts")))
    done
    [ "$count" = 145 ]
}

@test "ShareGPT's conversations are messages with other names" {
    {
        echo '{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
        echo '{"messages": [{"role": "user", "content": "c"}, {"role": "assistant", "content": ""}]}'
    } >"$T/messages.jsonl"
    {
        echo '{"id": 1, "conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "a", "x": 1}, {"from": "gpt", "value": "b"}]}'
        echo '{"conversations": [{"from": "user", "value": "c"}, {"from": "assistant", "value": ""}]}'
    } >"$T/share.jsonl"
    tokenizer_of v3
    of() { st-tokenize --tokenizer "$T/t" "$@" | st-sum --each; }
    [ "$(of "$T/share.jsonl")" = "$(of "$T/messages.jsonl")" ]
    sed 's/conversations/turns/' "$T/share.jsonl" >"$T/turns.jsonl"
    [ "$(of --field turns "$T/turns.jsonl")" = "$(of "$T/messages.jsonl")" ]
    share() { echo "{\"conversations\": $1}" >"$T/a.jsonl" && refused "$2" st-tokenize --tokenizer "$T/t" "$T/a.jsonl"; }
    share '[{"from": "observation", "value": "a"}]' "messages.0.: unknown role 'observation'"
    share '[{"from": "human", "value": "a"}, {"value": "b"}]' "messages.1.: unknown role ''"
    share '[{"from": "human", "value": "a"}, 7]' "messages.1.: unknown role ''"
    share '[{"from": "human", "value": 7}]' 'a content is not text'
    share '[{"from": "human", "text": "a"}, {"from": "gpt", "value": "b"}]' 'a content is not text'
    share '[{"from": 1, "value": "a"}]' "messages.0.: unknown role ''"
    share '[]' 'wanted 1 to'
}

@test "which release a chat template is, with other white space and quotes, or in a file of its own" {
    echo '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<think>c</think>b"}]}' >"$T/a.jsonl"
    text() { st-tokenize --tokenizer "$T/t" "$T/a.jsonl" | st-tokenize --tokenizer "$T/t" --decode | jq -r .text; }
    want='<｜User｜>a<｜Assistant｜><think>c</think>b<｜end▁of▁sentence｜>'
    tokenizer_of v3.1 "$(jq -r '."v3.1"' "$TEMPLATES" | sed -E "s/%\}\{/%}\n  {/g; s/'/\"/g")"
    [ "$(text)" = "$want" ]
    tokenizer_of v3
    jq -j '."v3.1"' "$TEMPLATES" >"$T/t/chat_template.jinja"
    [ "$(text)" = "$want" ]
    rm "$T/t/chat_template.jinja"
    # Another string, other text, a part that no release combines: unknown.
    for change in "s/'<｜User｜>'/'<｜User｜>Hi '/" 's/^/Hi /' 's/ns\.is_first_sp/ns.first/g' \
        "s/split('<\/think>', 1)\[1\]/split('<\/think>')[-1]/"; do
        tokenizer_of v3.1 "$(jq -r '."v3.1"' "$TEMPLATES" | sed "$change")"
        refused 'the format of messages is unknown: .* convert messages to text first' \
            st-tokenize --tokenizer "$T/t" "$T/a.jsonl"
    done
    tokenizer_of none # a V3 without a template, though with V4's tokens
    refused 'the format of messages is unknown' st-tokenize --tokenizer "$T/t" "$T/a.jsonl"
    tokenizer_of v3.2 '{{ messages }}' # a V3.2 with another one
    refused 'the format of messages is unknown' st-tokenize --tokenizer "$T/t" "$T/a.jsonl"
}

@test "tools of V3.1 as its model card describes them; V3 and R1 have none" {
    echo '{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}], "tools": [{"function":
        {"name": "f", "description": "d", "parameters": {"a": 1e-5}}}, {"function": {"name": "g"}}]}' | jq -c . >"$T/a.jsonl"
    tokenizer_of v3.1
    st-tokenize --tokenizer "$T/t" "$T/a.jsonl" | st-tokenize --tokenizer "$T/t" --decode | jq -r .text >"$T/text"
    diff "$T/text" - <<'END'
s

## Tools
You have access to the following tools:

### f
Description: d

Parameters: {"a": 1e-05}

### g
Description: 

Parameters: {}

IMPORTANT: ALWAYS adhere to this exact format for tool use:
<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tool_call_name<｜tool▁sep｜>tool_call_arguments<｜tool▁call▁end｜>{additional_tool_calls}<｜tool▁calls▁end｜>

Where:
- `tool_call_name` must be an exact match to one of the available tools
- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema
- For multiple tool calls, chain them directly without separators or spaces<｜User｜>a
END
    for style in v3 v3-0324 r1 r1-0528; do
        tokenizer_of $style
        refused "line 1: the templates of V3 and R1 write no tools; .* leave 'tools' out" \
            st-tokenize --tokenizer "$T/t" "$T/a.jsonl"
    done
    echo '{"messages": [{"role": "developer", "content": "a"}]}' >"$T/b.jsonl"
    refused 'messages.0.: only .* have developers' st-tokenize --tokenizer "$T/t" "$T/b.jsonl"
    tokenizer_of v3.2
    echo '{"messages": [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]}' >"$T/b.jsonl"
    refused 'messages.1.: a tool.s result without a call' st-tokenize --tokenizer "$T/t" "$T/b.jsonl"
    echo '{"messages": [{"role": "latest_reminder", "content": "a"}]}' >"$T/b.jsonl"
    refused 'messages.0.: V3.2.s rules have no reminders' st-tokenize --tokenizer "$T/t" "$T/b.jsonl"
}

@test "who decides how messages are written: config.json, V4's and V4.1's tokens, a template of DeepSeek's; or it is an error" {
    # tokenizer MODEL_TYPE TEMPLATE [FILTER]: v4-nano's, changed, with the one and the other beside it.
    tokenizer() {
        mkdir -p "$T/t"
        jq -c "${3:-.}" "$NANO/tokenizer.json" >"$T/t/tokenizer.json"
        rm -f "$T/t/config.json"
        [ -z "$1" ] || jq -nc --arg type "$1" '{model_type: $type}' >"$T/t/config.json"
        jq -c --arg template "$2" '.chat_template = (if $template == "" then null else $template end)' \
            "$NANO/tokenizer_config.json" >"$T/t/tokenizer_config.json"
    }
    texts() { st-tokenize --tokenizer "$T/t" "$@" | tokenize --decode | jq -r .text; }
    echo '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "reasoning_content": "c"}]}' >"$T/a.jsonl"
    v31=$(jq -r '."v3.1"' "$TEMPLATES")
    v4='<｜User｜>a<｜Assistant｜><think>c</think>b<｜end▁of▁sentence｜>'
    without='.added_tokens |= map(select(.content != "<｜latest_reminder｜>"))'
    for template in '' "$v31" '<|im_start|>'; do
        for model in '' deepseek_v4 another; do
            tokenizer "$model" "$template"
            [ "$(texts "$T/a.jsonl")" = "$v4" ]
        done
        tokenizer deepseek_v4 "$template" "$without" # the family alone
        [ "$(texts "$T/a.jsonl")" = "$v4" ]
    done
    tokenizer '' "$v31" "$without"
    [ "$(texts "$T/a.jsonl")" = '<｜User｜>a<｜Assistant｜><think>c</think>b<｜end▁of▁sentence｜>' ]
    for template in '' '<|im_start|>'; do
        tokenizer '' "$template" "$without"
        refused 'the format of messages is unknown: .* convert messages to text first' \
            st-tokenize --tokenizer "$T/t" "$T/a.jsonl"
    done
    line a >"$T/b.jsonl"
    [ "$(texts "$T/b.jsonl")" = a ]
    # V4.1: by its family, or, without a known one, by its token for systems.
    v41="<｜System｜>Reasoning Effort: 75 (range 1-100, the higher the value, the more thorough the reasoning)"
    v41+=$'\n\n'$v4
    system='(.added_tokens[] | select(.content == "<｜place▁holder▁no▁0｜>")).content = "<｜System｜>"'
    for model in '' another deepseek_v41; do
        tokenizer "$model" '' "$system"
        [ "$(st-tokenize --tokenizer "$T/t" "$T/a.jsonl" | st-tokenize --tokenizer "$T/t" --decode | jq -r .text)" = "$v41" ]
    done
    st-tokenize --no-bos --tokenizer "$T/t" -o "$T/a.ts" "$T/a.jsonl"
    [ "$(ids "$T/a.ts" | head -n 1 | cut -d' ' -f1)" = 4032 ] # that token
    tokenizer deepseek_v4 '' "$system"
    [ "$(texts "$T/a.jsonl")" = "$v4" ]
}

@test "what messages say is text, though it is spelled like a role token" {
    echo '{"messages": [{"role": "user", "content": "say <think> and <｜User｜>"}]}' >"$T/a.jsonl"
    tokenize --no-bos "$T/a.jsonl" >"$T/a.ts"
    ids "$T/a.ts" | head -n 1 | tr ' ' '\n' >"$T/ids"
    [ "$(grep -cx 4040 "$T/ids")" = 1 ]                 # <｜User｜>, the template's
    [ "$(tail -n 2 "$T/ids" | xargs)" = '4041 4059' ]   # <｜Assistant｜></think>
    [ "$(grep -cx 4058 "$T/ids" || true)" = 0 ]         # <think>
    echo '{"text": "say <think> and <｜User｜>"}' >"$T/b.jsonl"
    tokenize --no-bos "$T/b.jsonl" >"$T/b.ts"           # of texts, it is the token
    ids "$T/b.ts" | head -n 1 | tr ' ' '\n' | grep -cx '4040\|4058' | grep -qx 2
}

@test "a text with the beginning token gets no second one" {
    line '<｜begin▁of▁sentence｜>a' >"$T/a.jsonl"
    tokenize "$T/a.jsonl" >"$T/a.ts"
    [ "$(ids "$T/a.ts" | head -n 1)" = '0 67' ]
    tokenize --no-bos "$T/a.jsonl" >"$T/a.ts"
    [ "$(ids "$T/a.ts" | head -n 1)" = '0 67' ]
}

@test "--decode gives the texts back, from a stream and from safetensors" {
    tokenize "$TEXT/eval.jsonl" | tokenize --decode >"$T/texts"
    diff <(jq .text "$T/texts") <(jq .text "$TEXT/eval.jsonl")
    tokenize --decode -o "$T/golden" "$GOLDEN/eval-ids.safetensors"
    tokenize --length 256 "$TEXT/eval.jsonl" | tokenize --decode | cmp - "$T/golden"
    tokenize --decode --no-bos "$GOLDEN/eval-ids.safetensors" | head -n 1 >"$T/first" || true
    grep -q '^{"text":"<｜begin▁of▁sentence｜>' "$T/first"
    printf 'é%.0s' {1..9} | jq -Rc '{text: .}' >"$T/e.jsonl" # cut in the middle of a character
    [ "$(tokenize --no-bos --length 2 <<<'{"text": "\u1e9e"}' | tokenize --decode)" = '{"text":"�"}' ]
}

@test "--decode takes I64, and refuses what are no samples" {
    header='{"input_ids":{"dtype":"I64","shape":[1,2],"data_offsets":[0,16]}}'
    safetensors "$T/a.safetensors" "$header" '\x43\0\0\0\0\0\0\0\x43\0\0\0\0\0\0\0'
    [ "$(tokenize --decode "$T/a.safetensors")" = '{"text":"aa"}' ]
    safetensors "$T/b.safetensors" "$header" '\x43\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff'
    fails 'sample 0, token 1: id -1' --decode "$T/b.safetensors"
    safetensors "$T/c.safetensors" "$header" '\x43\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0'
    fails 'row 0, column 1: the tokenizer has no token 4096' --decode "$T/c.safetensors"
    safetensors "$T/d.safetensors" '{"input_ids":{"dtype":"U8","shape":[1,2],"data_offsets":[0,2]}}' 'ab'
    fails 'wanted I32 or I64, got U8' --decode "$T/d.safetensors"
    safetensors "$T/e.safetensors" '{"input_ids":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}' 'abcd'
    fails 'wanted shape [samples,length], got [1]' --decode "$T/e.safetensors"
    safetensors "$T/f.safetensors" '{"ids":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}' 'abcd'
    fails 'no tensor input_ids' --decode "$T/f.safetensors"
    safetensors "$T/g.safetensors" \
        '{"input_ids":{"dtype":"I32","shape":[1,1],"data_offsets":[0,4]},"lengths":{"dtype":"I32","shape":[1],"data_offsets":[4,8]}}' \
        '\x43\0\0\0\x02\0\0\0'
    fails 'sample 0 has 2 tokens, wanted 0 to 1' --decode "$T/g.safetensors"
    safetensors "$T/h.safetensors" \
        '{"input_ids":{"dtype":"I32","shape":[1,1],"data_offsets":[0,4]},"lengths":{"dtype":"I32","shape":[2],"data_offsets":[4,12]}}' \
        '\x43\0\0\0\x01\0\0\0\x01\0\0\0'
    fails 'lengths: wanted 1 of them' --decode "$T/h.safetensors"
    tokenize -n "$TEXT/eval.jsonl" >"$T/plan.ts"
    fails 'is a plan, without tensors' --decode "$T/plan.ts"
}

@test "texts that are none: file, line and place are named" {
    printf '{"text": "a"}\n\n{"text": "b\xe9"}\n' >"$T/latin.jsonl"
    fails "$T/latin.jsonl: line 3, offset 26: not UTF-8 (byte 0xe9)" "$T/latin.jsonl"
    printf 'ab\ncd\xffe\n' >"$T/a.txt"
    fails "$T/a.txt: line 2, offset 5: not UTF-8 (byte 0xff)" --length 8 "$T/a.txt"
    printf 'a\0b\n' | iconv -t UTF-16 >"$T/b.txt"
    fails "line 1, offset 0: not UTF-8" --length 8 "$T/b.txt"
    # UTF-8 by chance.
    printf 'ab\nc\n' | iconv -t UTF-16LE >"$T/c.txt"
    fails "$T/c.txt: line 1, offset 1: a NUL byte; it is UTF-16, an archive or another binary file" --length 8 "$T/c.txt"
    tar -C "$T" -czf "$T/a.tar.gz" c.txt
    fails "$T/a.tar.gz: line 1, offset 5: a NUL byte" --length 8 "$T/a.tar.gz"
    printf '{"text": "a"}\n{"text": "b"\n' >"$T/b.jsonl"
    fails "$T/b.jsonl: line 2: " "$T/b.jsonl"
    echo '{"body": "a"}' >"$T/c.jsonl"
    fails "$T/c.jsonl: line 1: wanted text, article" "$T/c.jsonl"
    fails "line 1: wanted x" --field x "$T/c.jsonl"
    echo '{"text": "\ud800"}' >"$T/d.jsonl"
    fails "line 1: invalid Unicode" "$T/d.jsonl"
    for _ in {1..5000}; do printf '['; done >"$T/e.jsonl"
    fails "line 1: maximum parsing depth" "$T/e.jsonl"
    echo '{"messages": [{"role": "bard", "content": "a"}]}' >"$T/f.jsonl"
    fails "line 1: messages[0]: unknown role 'bard'" "$T/f.jsonl"
    head -c $((17 << 20)) /dev/zero | tr '\0' ' ' >"$T/g.jsonl"
    fails "line 1: longer than 16 MiB" "$T/g.jsonl"
    fails "$T/none: No such file" "$T/none.jsonl" || fails "$T/none.jsonl: No such file" "$T/none.jsonl"
    fails "$T: Is a directory" --format jsonl "$T"
}

@test "rows of an array, a byte order mark, gzip, zstd: the same ids as of JSON lines" {
    tokenize --length 256 "$TEXT/eval.jsonl" | st-sum >"$T/sum"
    same() { tokenize --length 256 "$@" | st-sum | cmp - "$T/sum"; }
    jq -cs . "$TEXT/eval.jsonl" >"$T/line.json"
    jq -s . "$TEXT/eval.jsonl" >"$T/indented.json"
    { printf '\xef\xbb\xbf' && cat "$TEXT/eval.jsonl"; } >"$T/mark.jsonl"
    { printf '\xef\xbb\xbf\n ' && cat "$T/indented.json"; } >"$T/mark.json"
    for file in line.json indented.json mark.jsonl mark.json; do
        same "$T/$file"
        gzip -k "$T/$file"
        zstd -qk "$T/$file"
        same "$T/$file.gz"
        same "$T/$file.zst"
        same - <"$T/$file.zst"
    done
    gzip -c "$TEXT/eval.jsonl" >"$T/renamed.jsonl"
    same "$T/renamed.jsonl"
    { head -n 9 "$TEXT/eval.jsonl" | gzip && tail -n +10 "$TEXT/eval.jsonl" | gzip; } >"$T/two.ndjson.gz"
    same "$T/two.ndjson.gz"
    for _ in {1..60}; do cat "$TEXT/eval.jsonl"; done | jq -cs . >"$T/large.json"
    [ "$(stat -c %s "$T/large.json")" -gt $((4 << 20)) ]
    tokenize --length 256 --samples 999 "$T/large.json" 2>/dev/null | st-sum >"$T/sum"
    for _ in {1..60}; do cat "$TEXT/eval.jsonl"; done >"$T/large.jsonl"
    same --samples 999 -q "$T/large.jsonl"

    printf '\xef\xbb\xbfHello world' | gzip >"$T/a.txt.gz" # plain text, too
    tokenize --length 4 "$T/a.txt.gz" >"$T/a.ts"
    [ "$(ids "$T/a.ts" | head -n 1)" = '0 42 363 339' ]
}

@test "strings in an array's rows hold any bracket; rows whose text is null are left out and counted" {
    printf '%s' ' [{"text": "a ] } \\\" ,", "b": [{"c": "["}]},
        {"text":null} , {"messages": null}, {"prompt": "p", "response": null}, {"article": "b", "text": null} ]' >"$T/a.json"
    tokenize "$T/a.json" 2>"$T/log" | tokenize --decode | jq -r .text >"$T/texts"
    printf '%s\n' 'a ] } \" ,' b | cmp - "$T/texts"
    grep -q 'left out: 3 empty or null samples' "$T/log"
    { echo '{"x": null}' && echo '{"x": "a"}'; } >"$T/b.jsonl"
    tokenize --field x "$T/b.jsonl" 2>"$T/log" | bsdtar -xOf - .end | jq -e '.counts[0] | .samples == 1 and .empty == 1'
    grep -q 'left out: 1 empty or null' "$T/log"
    echo '{"text": null}' >"$T/c.jsonl"
    fails 'no sample in it (1 empty' "$T/c.jsonl"
}

@test "arrays that are none, and files that are cut, packed otherwise, or no text" {
    array() { printf '%b' "$1" >"$T/a.json"; }
    array '[]' && fails 'no sample in it' "$T/a.json"
    array '[{"text":"a"}' && fails 'line 1: the array has no end' "$T/a.json"
    array '[{"text":"a"},\n\n{"text":"b"} {"text":"c"}]' && fails 'line 3: wanted a comma' "$T/a.json"
    array '[{"text":"a"}]\nx' && fails 'line 2: text after the array' "$T/a.json"
    array '[{"text":"a"},]' && fails 'line 1: ' "$T/a.json"
    array '["a"]' && fails 'line 1: a row must be a JSON object, such as {"text": "..."}' "$T/a.json"
    array '[{"text":"a"},\n{"text":1]' && fails 'line 2: ' "$T/a.json"
    array '[{"text":"\xff"}]' && fails 'line 1, offset 10: not UTF-8' "$T/a.json"
    for pack in gzip 'zstd -q'; do
        $pack -c "$TEXT/eval.jsonl" >"$T/whole"
        head -c 3000 "$T/whole" >"$T/cut.jsonl"
        fails 'is the file whole?' "$T/cut.jsonl"
        fails 'is the file whole?' - <"$T/cut.jsonl"
    done
    printf 'PAR1\x15\x04\x15\0' >"$T/train.parquet"
    fails "$T/train.parquet: a Parquet file; make JSON lines of it: duckdb -jsonlines -c" "$T/train.parquet"
    fails "FROM 'FILE.parquet'" --length 9 - <"$T/train.parquet"
    cp "$T/train.parquet" "$T/it's.parquet"
    fails "FROM 'FILE.parquet'" "$T/it's.parquet"
    gzip -k "$T/train.parquet"
    fails 'a Parquet file' "$T/train.parquet.gz"
    printf 'ARROW1\0\0' >"$T/a.arrow"
    fails 'an Arrow file' "$T/a.arrow"
    xz -c "$TEXT/eval.jsonl" >"$T/a.jsonl.xz"
    fails 'packed by xz' --format jsonl "$T/a.jsonl.xz"
}

@test "a field that is not there: what the row has is named" {
    jq -nc '{id: 1, body: "a", "a\u001b[31m": 2}' >"$T/a.jsonl"
    fails 'line 1: wanted text, article, prompt and response, messages, or conversations; the row has id, body, a?[31m; name what holds the text with --field' \
        "$T/a.jsonl"
    fails 'line 1: wanted x+id; the row has id, body' --field x+id "$T/a.jsonl"
    jq -nc '[range(30) | {key: "field\(.)", value: .}] | from_entries' >"$T/b.jsonl"
    fails 'field10, field11, ...; name' "$T/b.jsonl"
}

@test "nothing to tokenize" {
    : >"$T/a.jsonl"
    fails "$T/a.jsonl: no sample in it" "$T/a.jsonl"
    fails "$T/a.jsonl: no sample in it" --samples 9 "$T/a.jsonl"
    fails "$T/a.jsonl: no sample in it and the other files" "$T/a.jsonl" "$T/a.jsonl"
    fails '-: no sample in it' - <"$T/a.jsonl"
    line a >"$T/b.jsonl"
    run tokenize -o "$T/out" --full --length 100 "$T/b.jsonl"
    [ "$status" = 1 ]
    [[ $output == *'no sample of full length in it (0 empty, 1 too short)' ]]
}

@test "tokenizers: a file, one without a configuration, unknown parts, none" {
    line a >"$T/a.jsonl"
    tokenize -o "$T/a.ts" "$T/a.jsonl"
    st-tokenize -o "$T/b.ts" --tokenizer "$NANO/tokenizer.json" "$T/a.jsonl"
    cp "$NANO/tokenizer.json" "$T"
    st-tokenize -o "$T/c.ts" --tokenizer "$T" "$T/a.jsonl"
    cmp "$T/a.ts" "$T/b.ts"
    cmp "$T/a.ts" "$T/c.ts"

    echo '{"bos_token": null}' >"$T/tokenizer_config.json"
    fails "no token begins a text" --tokenizer "$T" "$T/a.jsonl"
    st-tokenize -q --no-bos --tokenizer "$T" "$T/a.jsonl" >"$T/d.ts"
    [ "$(ids "$T/d.ts" | head -n 1)" = 67 ]
    echo '{"bos_token": "<nothing>"}' >"$T/tokenizer_config.json"
    fails "$T/tokenizer_config.json: bos_token: '<nothing>' is not an added token" --tokenizer "$T" "$T/a.jsonl"
    rm "$T/tokenizer_config.json"

    jq -c '.normalizer = {type: "NFKC"}' "$NANO/tokenizer.json" >"$T/tokenizer.json"
    fails "$T/tokenizer.json: normalizer: 'NFKC' is not supported" --tokenizer "$T" "$T/a.jsonl"
    # Nothing from a file reaches the terminal but as text of one line.
    jq '.normalizer = {type: "Sequence", normalizers: [{type: "\u001b[31m\nred"}]}' "$NANO/tokenizer.json" >"$T/tokenizer.json"
    fails "$T/tokenizer.json: normalizer: '?[31m?red' is not supported" --tokenizer "$T" "$T/a.jsonl"
    head -c 1000 "$NANO/tokenizer.json" >"$T/tokenizer.json"
    fails "$T/tokenizer.json: line " --tokenizer "$T" "$T/a.jsonl"
    rm "$T/tokenizer.json"
    fails "$T: no tokenizer.json in it; is it a checkpoint" --tokenizer "$T" "$T/a.jsonl"
}

@test "wrong command lines" {
    for options in '' "--tokenizer $NANO --length 1" "--tokenizer $NANO --pack" "--tokenizer $NANO --full" \
        "--tokenizer $NANO --samples 0" "--tokenizer $NANO --samples 1," "--tokenizer $NANO --samples x" \
        "--tokenizer $NANO --field +" "--tokenizer $NANO --format xml" "--tokenizer $NANO --decode --pack" \
        "--tokenizer $NANO --decode a b" "--tokenizer $NANO --decode -n" "--tokenizer $NANO $TEXT/README.md"; do
        # shellcheck disable=SC2086 # a list
        run st-tokenize $options </dev/null
        echo "$options: $output"
        [ "$status" = 2 ]
    done
}

@test "a full disk, a closed pipe" {
    run bash -c "st-tokenize --tokenizer '$NANO' '$TEXT/eval.jsonl' >/dev/full"
    [ "$status" = 1 ]
    run bash -c "st-tokenize --tokenizer '$NANO' --decode '$GOLDEN/eval-ids.safetensors' >/dev/full"
    [ "$status" = 1 ]
    TMPDIR=$T/none run tokenize -o "$T/out" "$TEXT/eval.jsonl"
    [ "$status" = 1 ]
    [[ $output == *'ids, spooling to '* ]]
}

@test "tokenizers: by folder or file, here or elsewhere, and what is none" {
    echo 'a text' >"$T/text.txt"
    cp "$NANO"/tokenizer{,_config}.json "$T"
    st-tokenize --length 4 --tokenizer "$NANO" "$T/text.txt" | st-sum >"$T/sum"
    st-tokenize --length 4 --tokenizer "$T/tokenizer.json" "$T/text.txt" | st-sum | cmp - "$T/sum"
    (cd "$T" && st-tokenize --length 4 --tokenizer tokenizer.json text.txt) | st-sum | cmp - "$T/sum"
    refused 'nowhere: No such file' st-tokenize --length 4 --tokenizer "$T/nowhere" "$T/text.txt"
    refused 'wanted a file of at most 64 MiB' st-tokenize --length 4 --tokenizer /dev/null "$T/text.txt"
    truncate -s $(((128 << 20) + 1)) "$T/large"
    refused 'large: wanted a file of at most 64 MiB' st-tokenize --length 4 --tokenizer "$T/large" "$T/text.txt"
    ln -sf tokenizer_config.json "$T/tokenizer_config.json"
    refused 'tokenizer_config\.json: Too many levels' st-tokenize --length 4 --tokenizer "$T" "$T/text.txt"
}
