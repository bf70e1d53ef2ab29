"""What people saw in pictures and plots, told beside the figures; nothing here is computed.

Who measures a form anew looks again: what stands here is of the pictures in `docs/fidelity`.
"""

from __future__ import annotations

SIGHTINGS: dict[tuple[int, str], str] = {
    (1, "full"): (
        "One adapter does lead from the concept to any figure of its kind: the orange cat's "
        "stripes and the throne's purple fade step by step, and scenes stay. But what is named "
        "after somebody is off at every bias: the green cat sits on an ordinary chair; a cap that "
        "is worn is read as a hat in no picture at 0.5, 0.7 or 1.2, the crate under somebody as a "
        "box in one of twenty at 0.7. Decision 31 has the cause: beside others the concept's word "
        "has a similarity of 0.3 to 0.8, so that its gate is shut, and its embedding is not the "
        "super-category's there. That is also why the sweep does not end at the base, and text "
        "similarity gains little on the way."
    ),
    (1, "quick"): (
        "From 0.5 to 1.1 the bias leads from the concept towards the base: stripes go first, "
        "colours later, and the figure stays whole. At 0.2 it is no end of the front but beyond "
        "it: the gate's tail of 0.2 at the start token, on which most attention rests, covers the "
        "scene with stripes, and likeness is lost as well. The rule takes the lowest bias, so it "
        "is not met; the full form's sweep begins at 0.4. The default of LOCAL, 0.7, lies where "
        "the front is flat."
    ),
    (2, "quick"): (
        "With the rate of 0.1 LOCAL and GLOBAL have the cat's white stripes as TRAINED_K has, "
        "which they had not at 0.03. TRAINED_K has a little more likeness and less text, and "
        "the fronts do not reach a common likeness. GLOBAL's figure stays at every bias. The "
        "scene is obeyed everywhere, so that this base gives GLOBAL nothing to win there."
    ),
    (3, "quick"): (
        "The claim is not seen here, and the distance is half of what it was: at equal text "
        "similarity the LoRA has 0.05 more likeness (0.1 and more in the paper's form at a rate "
        "of 0.03). What it pays is measured in claim 11: it changes the super-category for "
        "everything. The rest of its lead is with sunglasses and throne beside others, where our "
        "gate is half shut (decision 31); the cat, named first, is as alike as the LoRA's. Textual "
        "inversion hardly leaves the base. The peers' best rates are at the edge of those tried."
    ),
    (4, "quick"): (
        "All concepts are there in nine of ten pictures, as with averaged LoRAs, and the least "
        "alike is as alike. At 0.5 the yellow of the sunglasses spreads over cat and chair; the "
        "throne's purple is in none of our pictures (named last, its gate is shut: decision 31). "
        "In the LoRAs' it is there, but on the cat: added, they cover the whole picture with the "
        "throne's stripes."
    ),
    (5, "quick"): (
        "From one picture the colours are much as from five; the kind is read right less often, "
        "and at bias 0.2 scene and companions suffer more: the over-fitting that the paper "
        "mentions."
    ),
    (6, "quick"): (
        "The mask from the base's own attention hurts: in this base little attention goes to the "
        "noun, so that it marks the subject badly. Training at 0.5 loses the figure."
    ),
    (7, "quick"): (
        "After four hundred steps the last adapter has less likeness than the kept one (0.64 and "
        "0.68 at bias 0.5) with the same text similarity; the validation curve, made of the "
        "training pictures, does not rise. So it does not warn of this over-training."
    ),
    (9, "quick"): (
        "Bytes and likeness go together: LOCAL's file is a tenth of the LoRA's, and "
        "TRAINED_K's half as large again as LOCAL's."
    ),
    (10, "quick"): (
        "The same adapters, prompts and noise: in the form of Eq. 3 the cat is an orange blob at "
        "1.1 and the chair is gone from the blend at 0.8. With the super-category in the place "
        "that the gate leaves, cat, sunglasses and chair stay, and at 1.1 the cat is any cat."
    ),
    (11, "quick"): (
        "At full scale the LoRA of the throne turns dog, rabbit and cat on it purple and striped, "
        "and that of the sunglasses turns rabbit and cat yellow; at a quarter of the scale, with "
        "little likeness left, most companions are other ones already. The table of what moves "
        "says why: it moves the values at the start token and at padding, which every place of "
        "the picture reads, by more than their own length. Ours are not untouched: at 0.5 the "
        "rabbit behind the sunglasses turns orange and the cat paler, and the orange cat's stripes "
        "tint the blue chair; seats' riders keep their looks, but the throne itself is hardly "
        "learned. From 0.8 on companions are close to those of the base. Textual inversion leaves "
        "them alone because it changes little at all."
    ),
}
"""Claim's number and form → what was seen."""
