#!/bin/sh
# A pipeline's year: the same gate on one checkpoint after the other. Prints for each step its exit
# code and the lines of its findings that were not in the step before (>) or are no more (<).
set -u

: > before.txt

gate() {  # gate TITLE CHECKPOINT FLAGS...: a new model.pt comes, and the pipeline looks at it
    title=$1
    cp "$2" model.pt
    shift 2
    look "$title" model.pt "$@"
}

look() {  # look TITLE ARGUMENTS...: with the settings of pyproject.toml
    printf '== %s\n' "$1"
    shift
    bncli inspect-checkpoint "$@" --format github > log.txt 2> errors.txt
    printf 'exit %s\n' "$?"
    # The commands without their messages, whose numbers change with every training.
    sed -n 's/^::\([a-z]* [^:]*\)::.*/\1/p' log.txt | sort > now.txt
    diff before.txt now.txt | grep '^[<>]'
    tail -n 1 log.txt | grep -o -e 'not counted.*' -e '[0-9]* of known.json.*'
    cat errors.txt
    mv now.txt before.txt
}

gate 'the first look, at a flaw' january.pt
gate 'the flaw is written down as known' january.pt --update-baseline
gate 'the next night' january.pt
gate 'trained on' february.pt
gate 'a new fault' march.pt
gate 'the new fault is accepted in this layer' march.pt --ignore 'BN203:block.1'
gate 'and not in another one' april.pt --ignore 'BN203:block.1'
gate 'wrapped, renamed, and in another order' may.pt
gate 'a file that was cut short' june.pt
look 'and the same beside a good one' june.pt february.pt
gate 'no BatchNorm at all' july.pt
gate 'a part is missing' august.pt
gate 'mended' september.pt
gate 'mended, and written down' september.pt --update-baseline
gate 'the old flaw is back' february.pt
look 'under another name' february.pt --update-baseline
gate 'the known flaw in a file of another name' february.pt
look 'and in three files more' 'm[ao]*.pt'
gate 'a typing error in a flag' december.pt --ignore BN2O3
gate 'a healthy end' december.pt
