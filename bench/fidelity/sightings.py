"""What people saw in pictures and plots, told beside the figures; nothing here is computed.

Who measures a form anew looks again: what stands here is of the pictures in `docs/fidelity`.
"""

from __future__ import annotations

SIGHTINGS: dict[tuple[int, str], str] = {
    (1, "full"): (
        "One adapter leads from the concept to any figure of its kind, and the sweep ends at the "
        "base: the orange cat's white stripes and the throne's purple fade step by step, scenes "
        "and companions stay at every bias, and nothing is washed out at 0.1. In company the "
        "concept is weaker: on a red chair the cat is striped at 0.1 alone and pink from 0.4 on, "
        "and the cat on the throne sits on an ordinary chair at every bias."
    ),
    (2, "full"): (
        "The claim does not hold here, and the sheet shows why: at the same bias TRAINED_K's cat "
        "has its orange and white stripes in every company, LOCAL's and GLOBAL's alone in the bare "
        "prompt and in two of six others. A locked word is attended to where the base looks for "
        "its noun, as it should be, and three times less than a trained one; but giving it more "
        "attention moves along the same front (decision 33). The scenes that locked keys are to "
        "protect are read in all pictures of either lock, so that this base gives them nothing to "
        "win. TRAINED_K's throne is purple when it stands alone, and ordinary under somebody, as "
        "the others' is."
    ),
    (3, "full"): (
        "Textual inversion hardly leaves the base: yellow or pink cats. The LoRA has its cat in "
        "every picture and its throne under every rider, and pays at full scale: the rider of the "
        "throne turns striped too. TRAINED_K, which the rule does not ask about, lies on the "
        "LoRA's front (0.715 / 0.544 at 0.7 beside 0.714 / 0.540 at a scale of 0.7) with a sixth "
        "of its bytes; it is the lock that keeps LOCAL and GLOBAL behind. The LoRA's best rate is "
        "the highest tried."
    ),
    (4, "full"): (
        "Scenes and figures stay, and the shades are yellow in nearly all pictures; the cat is "
        "striped in few, and the throne's purple shows in traces. Averaged LoRAs show as little of "
        "the cat, more of the throne, and spread its stripes over the cat; added ones cover the "
        "picture. A dog with the cap and a bear with cap and crate lose the cap or the crate most "
        "often (all present in 0.08 and 0.33 of pictures at 0.55); the four other blends keep all."
    ),
    (5, "full"): (
        "From one picture the cat is plainer than from five, at the same scenes and companions; "
        "shades and throne differ little."
    ),
    (6, "full"): (
        "The mask from the base's own attention does not help: in this base little attention goes "
        "to the noun, so that it marks the subject badly. Training at 0.5 loses likeness and text."
    ),
    (7, "full"): (
        "After six hundred steps both adapters are worse than after a hundred (0.59 and 0.64 of "
        "likeness at 0.1 and less text), and the validation curve, made of the training pictures, "
        "does not rise. So it does not warn of this over-training; fewer steps do."
    ),
    (9, "full"): (
        "Bytes and likeness go together, but TRAINED_K, with half as many bytes again as LOCAL, "
        "gets three quarters of the way to the LoRA, whose file is seven to ten times as large."
    ),
    (10, "full"): (
        "The same adapters, prompts and noise: in the form of Eq. 3 the cat covers the scene at "
        "0.1 and is an orange spot at 1.1, and cap and crate are gone from the blend at 0.9. With "
        "the super-category in the place that the gate leaves, scenes stay at 0.1 and figures at "
        "1.1."
    ),
    (11, "full"): (
        "At full scale the LoRA of the throne turns dog, rabbit and cat on it striped and purple, "
        "and the chair in the city loses its blue to the cat's orange; at the same prompts ours "
        "leaves riders and seats as the base makes them, and shows little of cat and throne. "
        "Read at equal likeness the two are alike. The dog in white is the one concept that all of "
        "our locks show in every company."
    ),
    (12, "full"): (
        "At every position the gate's tail covers the scene with the concept's stripes below 0.4; "
        "from the word on, 0.1 is a clean picture. In the paper's form the figure is gone at 1.1, "
        "so that of seven biases three or four are of use. Settling moves the sweep: "
        "the running mean's cat is still orange and white at 0.55, where ours is yellow with "
        "traces of stripes, and ours at 0.1 and 0.25 is its match, with more text and the kind "
        "read right. The colour alone is read right a little more often with the running mean "
        "(0.44 at 0.55 beside 0.40 at 0.25)."
    ),
}
"""Claim's number and form → what was seen."""
