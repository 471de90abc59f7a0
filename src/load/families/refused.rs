//! Families that are known and cannot be read, each with its reason, as transformers 5.24.0 computes them.

use super::Name;

/// A family, by one of its names, and why it cannot be read.
pub(super) struct Refused {
    name: Name,
    pub why: &'static str,
}

const fn refused(class: &'static str, model_type: &'static str, why: &'static str) -> Refused {
    Refused { name: Name { class, model_type }, why }
}

const WINDOWS: &str = "most layers attend over windows, and rotate by frequencies of their own";
const NORMS_OF_PROJECTIONS: &str = "all queries, and all keys, of a token have one norm over the width of their projection: a \
    factor for each token that no weight can carry, and for which a layer has no place";

const REFUSED: &[Refused] = &[
    refused("Gemma3ForCausalLM", "gemma3_text", WINDOWS),
    refused("Gemma3ForConditionalGeneration", "gemma3", WINDOWS),
    refused("Olmo2ForCausalLM", "olmo2", NORMS_OF_PROJECTIONS),
    refused(
        "HYV4ForCausalLM",
        "hy_v4",
        "each head has a sink in its softmax, which decoding has no place for, beside a gate for each value",
    ),
    refused(
        "Dots3NoteForCausalLM",
        "dots3_note_text",
        "the shared rotated key has a norm, for which a layer has no place, and some layers attend over windows",
    ),
    refused(
        "Dots3NoteForConditionalGeneration",
        "dots3_note",
        "the shared rotated key has a norm, for which a layer has no place, and some layers attend over windows",
    ),
    refused(
        "Glm5NextForConditionalGeneration",
        "glm5_next",
        "models of language and images in one configuration cannot be read; their language model mixes several residual \
         streams",
    ),
    refused(
        "MistralLarge4ForConditionalGeneration",
        "mistral_large4",
        "layers read the latents of others, some rotate nothing, and models of language and images in one configuration \
         cannot be read",
    ),
];

/// The reason why models of that class, or without a class of that type, cannot be read, if it is known.
pub(super) fn find(class: Option<&str>, model_type: Option<&str>) -> Option<&'static Refused> {
    REFUSED.iter().find(|family| match class {
        Some(class) => family.name.class == class,
        None => Some(family.name.model_type) == model_type,
    })
}
