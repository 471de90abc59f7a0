//! The tokenizer that a GGUF file carries, as plain data.

/// A GGUF file's tokenizer. Making token ids of text is left to a tokenizer library.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Tokenizer {
    /// Kind of tokenizer: `gpt2` is byte-level BPE, `llama` is SentencePiece.
    pub model: String,
    /// Name of the rule that splits text before BPE, for example `smollm`.
    pub pre_tokenizer: Option<String>,
    /// The vocabulary; a token's id is its place.
    pub tokens: Vec<String>,
    /// BPE merges in order of rank, each two tokens with a space between; empty for SentencePiece.
    pub merges: Vec<String>,
    /// SentencePiece scores, one per token, or empty.
    pub scores: Vec<f32>,
    /// GGUF's token types, one per token, or empty: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub token_types: Vec<i32>,
    /// Token that begins a text.
    pub bos: Option<u32>,
    /// Token that ends a text.
    pub eos: Option<u32>,
    /// Token for what is not in the vocabulary.
    pub unknown: Option<u32>,
    /// Whether a text must begin with `bos`; `None` if the file does not say.
    pub add_bos: Option<bool>,
    /// Jinja template that makes one text of a conversation.
    pub chat_template: Option<String>,
}
