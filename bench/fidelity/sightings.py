"""What people saw in pictures and plots, told beside the figures; nothing here is computed.

Who measures a form anew looks again: what stands here is of the pictures in `docs/fidelity`.
"""

from __future__ import annotations

SIGHTINGS: dict[tuple[int, str], str] = {
    (1, "quick"): (
        "Turned up from 0.5, the bias does not lead back to the base's pictures. At 1.1 "
        "sunglasses and chair are not drawn at all, at 0.8 they are missing in company. s is "
        "1.0 to 1.1 at the concept's word, so that the edit takes the whole super-category "
        "away there; the gate puts back four fifths of the target output at bias 0.8 and a "
        "third to a half at 1.1, and at the words after it, where s is about 0.2, the edit "
        "takes and puts nothing back. The useful end of the front is between 0.5 and 0.8. The "
        "default of LOCAL, 0.7, lies in that part, so it is a default to look at in the full "
        "form. At 0.2 the stripes come through and take hold of the scene. A hundred steps of "
        "eight rows are too few for colour and pattern under LOCAL, and likeness at 0.2 and "
        "0.5 is the same within the interval."
    ),
    (2, "quick"): (
        "Within the reduced form's hundred steps TRAINED_K alone has learned the orange cat "
        "with its white stripes; LOCAL and GLOBAL have its colours in part and no stripes. So "
        "the locked fronts lie lower in likeness and farther to the right, and what both "
        "reach is little: the comparison needs the full form's longer lessons. GLOBAL keeps "
        "the figure at biases where LOCAL loses it (0.8), since its keys are not edited. The "
        "scene is obeyed everywhere, so that this base gives GLOBAL nothing to win there."
    ),
    (3, "quick"): (
        "The claim is not seen here. The LoRA has the cat's stripes and the chair's from a "
        "hundred steps, keeps the scene, and at half scale has more likeness than our method "
        "reaches at any bias, with a text similarity that is about that of our best. It pays "
        "elsewhere: it changes the super-category for everything in the picture, so that the "
        "rabbit on the chair is striped too, and companions are lost at full scale. Textual "
        "inversion hardly leaves the base. Its best learning rate and the LoRA's are at the "
        "edge of the two tried, so that the peers may do better still. TRAINED_K, the same "
        "method with keys free, is far ahead of LOCAL in likeness within this budget, so that "
        "the pictures and the draws are not the cause. Whether it is the locked keys or the "
        "number of steps, the full form's longer lessons have to say."
    ),
    (5, "quick"): (
        "From one picture the colours are much as from five, and at bias 0.2 scene and "
        "companions suffer more: the over-fitting that the paper mentions."
    ),
    (6, "quick"): (
        "At the same rendering bias an adapter trained at 0.5 has less of its concept and "
        "loses the figure earlier, so that a rendering bias belongs to the bias that was "
        "trained with. Of its four points only that at 0.2 is in the useful part, so the "
        "difference found may be the sweep's coarseness and not the method's: the full form "
        "has six points there."
    ),
    (9, "quick"): (
        "Bytes and likeness go together: LOCAL's file is a tenth of the LoRA's, and "
        "TRAINED_K's half as large again as LOCAL's, with most of the LoRA's likeness."
    ),
}
"""Claim's number and form → what was seen."""
