#!/usr/bin/env bats
# Adapters as PEFT describes them: every field of adapter_config.json is honoured or refused.

load helpers

setup_file() {
    export W=$BATS_FILE_TMPDIR
    cd "$W"
    python3 "$BATS_TEST_DIRNAME/make_model.py" model
    for i in $(seq 20); do
        echo "{\"messages\": [{\"role\": \"user\", \"content\": \"say $((i % 5))\"}, {\"role\": \"assistant\", \"content\": \"$((i % 5)) it is\"}]}"
    done > train.jsonl
    swift-tokenize -q --model model --out train.shard train.jsonl
    export T="swift-train -q --model model --dtype f32 --plot none --lr 0.01"
    $T --target-modules 're:model\.layers\.1\..*(q_proj|v_proj|up_proj)' --out second train.shard
    $T --target-modules q_proj --target-modules v_proj --out plain train.shard
    echo '{"prompt": "say 3", "continuations": [" it is", "abc", "3 it is"]}' > score.jsonl
    swift-infer -q --score --dtype f32 -m model -a second score.jsonl > second.scores
    swift-infer -q --score --dtype f32 -m model -a plain score.jsonl > plain.scores
}

setup() { cd "$BATS_TEST_TMPDIR"; }

# A copy of an adapter with other fields: configured FOLDER JSON
configured() {
    rm -rf "$1.copy"; cp -r "$W/$1" "$1.copy"
    python3 - "$1.copy/adapter_config.json" "$2" <<'E'
import json, sys
config = json.load(open(sys.argv[1])) | json.loads(sys.argv[2])
json.dump(config, open(sys.argv[1], "w"))
E
}
# The copy scores as the adapter that it was copied from.
same_scores() {
    configured "$@"
    swift-infer -q --score --dtype f32 -m "$W/model" -a "$1.copy" "$W/score.jsonl" | cmp - "$W/$1.scores"
}
refused() { # FIELD JSON
    configured plain "$2"
    for program in "swift-infer -q --score -m $W/model -a plain.copy $W/score.jsonl" "swift-merge -q -m $W/model -a plain.copy -o merged" \
        "swift-train -q -m $W/model -a plain.copy -o out $W/train.shard"; do
        fails 1 "\"$1\"" $program || return 1
        grep -q plain.copy/adapter_config.json told || return 1
    done
}

@test "the layers and modules that a configuration leaves out are left out" {
    names='"target_modules": ["q_proj", "v_proj", "up_proj"]'
    same_scores second "{$names, \"layers_to_transform\": [1]}"
    same_scores second "{$names, \"layers_to_transform\": 1, \"layers_pattern\": \"layers\"}"
    same_scores second "{$names, \"layers_to_transform\": [1, 7], \"layers_pattern\": [\"h\", \"layers\"]}"
    same_scores second '{"target_modules": "all-linear", "exclude_modules": ".*layers\\.0.*|.*(k_proj|o_proj|gate_proj|down_proj)"}'
    same_scores plain '{"target_modules": ["q_proj", "v_proj", "up_proj"], "exclude_modules": ["mlp.up_proj"]}'
    same_scores plain '{"layers_to_transform": [], "exclude_modules": []}'
    configured second "{$names, \"layers_to_transform\": [1], \"layers_pattern\": \"h\"}"
    fails 1 "no module of this model" swift-infer -q -m "$W/model" -a second.copy "$W/score.jsonl"
    refused exclude_modules '{"exclude_modules": 7}'
    refused exclude_modules '{"exclude_modules": "("}'
    refused layers_to_transform '{"layers_to_transform": "1"}'
    refused layers_to_transform '{"layers_to_transform": [1], "target_modules": ".*(q_proj|v_proj)"}'
    refused layers_pattern '{"layers_to_transform": [1], "layers_pattern": "("}'
}

@test "what PEFT writes into every configuration is taken" {
    same_scores plain '{"alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null, "auto_mapping": null, "corda_config": null,
        "ensure_weight_tying": false, "eva_config": null, "exclude_modules": null, "fan_in_fan_out": true, "init_lora_weights": true,
        "kasa_config": null, "layer_replication": null, "layers_pattern": null, "layers_to_transform": null, "loftq_config": {},
        "lora_bias": false, "lora_ga_config": null, "megatron_config": null, "megatron_core": "megatron.core", "modules_to_save": null,
        "monteclora_config": null, "peft_version": "0.21.2", "qalora_group_size": 16, "rank_pattern": {}, "revision": "main",
        "target_parameters": null, "trainable_token_indices": null, "use_bdlora": null, "use_dora": false, "use_qalora": false,
        "use_rslora": false, "velora_config": null}'
    same_scores plain '{"init_lora_weights": "gaussian"}'
}

@test "what changes a result and is not known here is refused by every program" {
    for start in pissa pissa_niter_16 olora corda lora_ga loftq; do
        refused init_lora_weights "{\"init_lora_weights\": \"$start\"}"
    done
    refused use_dora '{"use_dora": true}'
    refused lora_bias '{"lora_bias": true}'
    refused bias '{"bias": "lora_only"}'
    refused use_qalora '{"use_qalora": true}'
    refused alora_invocation_tokens '{"alora_invocation_tokens": [5, 6]}'
    refused layer_replication '{"layer_replication": [[0, 2], [1, 2]]}'
    refused trainable_token_indices '{"trainable_token_indices": [1, 2]}'
    refused target_parameters '{"target_parameters": ["mlp.experts.gate_up_proj"]}'
    refused use_bdlora '{"use_bdlora": {"target_modules_bd_a": ["q_proj"]}}'
    refused a_field_of_tomorrow '{"a_field_of_tomorrow": true}'
}

@test "two adapters that train a module whole do not go together; one may name it twice" {
    T2="${T/--model model/--model $W/model}"
    for i in 1 2; do $T2 --seed $i --target-modules q_proj --modules-to-save embed_tokens --out whole$i "$W/train.shard"; done
    for program in "swift-infer -q -m $W/model -a whole1 -a whole2 $W/score.jsonl" "swift-merge -q -m $W/model -a whole1 -a whole2 -o merged"; do
        fails 1 'whole2/adapter_config.json: "modules_to_save": model.embed_tokens is trained whole by another adapter' $program
    done
    swift-infer -q --score --dtype f32 -m "$W/model" -a whole1 "$W/score.jsonl" > want
    sed -i 's/"embed_tokens"/"embed_tokens", "model.embed_tokens"/' whole1/adapter_config.json
    swift-infer -q --score --dtype f32 -m "$W/model" -a whole1 -a "$W/plain" "$W/score.jsonl"
    swift-infer -q --score --dtype f32 -m "$W/model" -a whole1 "$W/score.jsonl" | cmp - want
}

@test "adapter_model.bin, as PEFT wrote it first" {
    configured plain '{}'
    mkdir turned; cp plain.copy/adapter_model.safetensors turned/model.safetensors
    python3 "$BATS_TEST_DIRNAME/to_torch.py" turned 1; mv turned/pytorch_model.bin plain.copy/adapter_model.bin
    rm plain.copy/adapter_model.safetensors
    swift-infer -q --score --dtype f32 -m "$W/model" -a plain.copy "$W/score.jsonl" | cmp - "$W/plain.scores"
    swift-merge -q -m "$W/model" -a plain.copy -o merged
    swift-merge -q -m "$W/model" -a "$W/plain" -o same
    cmp merged/model.safetensors same/model.safetensors
    rm plain.copy/adapter_model.bin
    fails 1 "plain.copy/adapter_model.safetensors: No such file" swift-infer -q -m "$W/model" -a plain.copy "$W/score.jsonl"
}
