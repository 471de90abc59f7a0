//! Text to tokens and back: byte-level BPE from a GGUF file's metadata, or any `tokenizer.json`.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use latent_attention::load;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

/// GGUF's type of tokens that control the model and are no text.
const CONTROL: i32 = 3;

/// Splits at contractions, runs of letters, up to three digits, punctuation with a following line break, and white
/// space: Llama 3's published pattern.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// As Llama 3's, but every digit stands alone: Qwen2's published pattern.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A tokenizer and the tokens that begin and end a text.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bos: Option<u32>,
    eos: Vec<u32>,
}

impl Tokenizer {
    /// Builds the tokenizer that a GGUF file describes.
    ///
    /// # Errors
    /// If the kind of tokenizer or its way of splitting text is not known here, or a merge is malformed.
    pub fn from_gguf(vocabulary: &load::Tokenizer) -> Result<Self> {
        ensure!(
            vocabulary.model == "gpt2",
            "the GGUF file has a `{}` tokenizer, and only byte-level BPE (`gpt2`) is read from GGUF; \
             give a Hugging Face directory with a tokenizer.json instead",
            vocabulary.model
        );
        let pre = vocabulary.pre_tokenizer.as_deref().unwrap_or("default");
        let splitter = splitter(pre)?;
        let ids = 0u32..;
        let vocab: Vocab = vocabulary.tokens.iter().cloned().zip(ids).collect();
        let merges = vocabulary.merges.iter().map(|merge| {
            let (left, right) = merge.split_once(' ').with_context(|| format!("merge {merge:?} has no blank"))?;
            Ok((left.to_owned(), right.to_owned()))
        });
        let merges = merges.collect::<Result<Merges>>()?;
        // Llama 3 takes a word that is a token as it is, even where the merges would not arrive at it.
        let ignore_merges = pre == "llama-bpe";
        let bpe = BPE::builder().vocab_and_merges(vocab, merges).ignore_merges(ignore_merges).build();
        let mut inner = tokenizers::Tokenizer::new(bpe.map_err(|why| anyhow!("vocabulary of the GGUF file: {why}"))?);
        inner.with_pre_tokenizer(Some(splitter)).with_decoder(Some(ByteLevel::default()));
        let typed = vocabulary.tokens.iter().zip(&vocabulary.token_types);
        let control: Vec<_> =
            typed.filter(|(_, kind)| **kind == CONTROL).map(|(token, _)| AddedToken::from(token, true)).collect();
        inner.add_special_tokens(control).map_err(|why| anyhow!("tokens of the GGUF file: {why}"))?;
        Ok(Self { inner, bos: vocabulary.bos, eos: vocabulary.eos.into_iter().collect() })
    }

    /// Reads `tokenizer.json` from a Hugging Face directory; `bos` and `eos` are the ids that the
    /// model's configuration names.
    ///
    /// # Errors
    /// If there is no such file or it cannot be understood.
    pub fn from_directory(directory: &Path, bos: Option<u32>, eos: &[u32]) -> Result<Self> {
        let path = directory.join("tokenizer.json");
        let inner = tokenizers::Tokenizer::from_file(&path).map_err(|why| anyhow!("{}: {why}", path.display()))?;
        Ok(Self { inner, bos, eos: eos.to_vec() })
    }

    /// The tokens of `text`, without any that mark its beginning or end.
    ///
    /// # Errors
    /// If the text holds something that the vocabulary cannot express.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode(text, false).map_err(|why| anyhow!("cannot tokenise the text: {why}"))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `tokens`.
    ///
    /// # Errors
    /// If the decoder rejects them.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        self.inner.decode(tokens, true).map_err(|why| anyhow!("cannot decode tokens: {why}"))
    }

    /// The token that begins a text, if the model has one.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Whether `token` ends a text.
    #[must_use]
    pub fn is_end(&self, token: u32) -> bool {
        self.eos.contains(&token)
    }

    /// Decodes generated tokens one by one: the closure returns the text that became certain with a token, which
    /// is nothing while a character of several bytes is incomplete.
    pub fn stream(&self) -> impl FnMut(u32) -> Result<String> {
        let mut stream = self.inner.decode_stream(true);
        move |token| {
            let text = stream.step(token).map_err(|why| anyhow!("cannot decode token {token}: {why}"))?;
            Ok(text.unwrap_or_default())
        }
    }

    /// Writes `tokenizer.json` into `directory`, where [`Self::from_directory`] finds it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, directory: &Path) -> Result<()> {
        let path = directory.join("tokenizer.json");
        self.inner.save(&path, false).map_err(|why| anyhow!("{}: {why}", path.display()))
    }
}

/// The pre-tokenizer behind a GGUF name.
fn splitter(pre: &str) -> Result<PreTokenizerWrapper> {
    let bytes = |use_regex| PreTokenizerWrapper::from(ByteLevel::new(false, true, use_regex));
    let pattern = |pattern: &str| {
        let pattern = SplitPattern::Regex(pattern.to_owned());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
        split.map_err(|why| anyhow!("pattern of the pre-tokenizer: {why}"))
    };
    let stages = match pre {
        "gpt-2" | "default" => return Ok(bytes(true)),
        "smollm" => vec![Digits::new(true).into(), bytes(true)],
        "llama-bpe" => vec![pattern(LLAMA3)?.into(), bytes(false)],
        "qwen2" => vec![pattern(QWEN2)?.into(), bytes(false)],
        other => bail!(
            "the GGUF file splits text by the rules called `{other}`, which are not known here; \
             give a Hugging Face directory with a tokenizer.json instead"
        ),
    };
    Ok(Sequence::new(stages).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every byte as a token (in the byte-level alphabet's order by code point), and a few merges.
    fn vocabulary(pre: &str) -> load::Tokenizer {
        let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
        alphabet.sort_unstable();
        let merges = ["t h", "th e", "Ġ the", "1 8", "18 4", "\u{c3} \u{a9}"];
        let mut vocabulary = load::Tokenizer::default();
        vocabulary.model = "gpt2".into();
        vocabulary.pre_tokenizer = Some(pre.into());
        vocabulary.tokens = vec!["<|begin|>".to_owned(), "<|end|>".to_owned()];
        vocabulary.tokens.extend(alphabet.into_iter().map(String::from));
        vocabulary.tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
        vocabulary.merges = merges.map(str::to_owned).to_vec();
        vocabulary.token_types = vec![1; vocabulary.tokens.len()];
        vocabulary.token_types[..2].fill(CONTROL);
        (vocabulary.bos, vocabulary.eos) = (Some(0), Some(1));
        vocabulary
    }

    fn pieces(pre: &str, text: &str) -> Vec<String> {
        let vocabulary = vocabulary(pre);
        let ids = Tokenizer::from_gguf(&vocabulary).unwrap().encode(text).unwrap();
        ids.into_iter().map(|id| vocabulary.tokens[id as usize].clone()).collect()
    }

    #[test]
    fn every_kind_gives_the_text_back() {
        let text = "In 1847 the  caf\u{e9}'s tide\n\n was 3.5 m \u{1f30a} <|end|>, they'd say\t.";
        for pre in ["smollm", "gpt-2", "default", "llama-bpe", "qwen2"] {
            let tokenizer = Tokenizer::from_gguf(&vocabulary(pre)).unwrap();
            let tokens = tokenizer.encode(text).unwrap();
            assert!(tokenizer.is_end(tokens[tokens.iter().position(|&t| t == 1).unwrap()]), "{pre}");
            assert_eq!(tokenizer.decode(&tokens).unwrap(), text.replace("<|end|>", ""), "{pre}");
        }
    }

    #[test]
    fn digits_stand_alone_where_the_model_wants_it() {
        assert_eq!(pieces("smollm", "184"), ["1", "8", "4"]);
        assert_eq!(pieces("qwen2", "184"), ["1", "8", "4"]);
        assert_eq!(pieces("gpt-2", "184"), ["184"]);
        assert_eq!(pieces("llama-bpe", "1841"), ["184", "1"]);
    }

    #[test]
    fn words_are_merged_with_their_blank() {
        assert_eq!(pieces("smollm", "the the"), ["the", "Ġthe"]);
    }

    #[test]
    fn a_stream_waits_for_whole_characters() {
        let tokenizer = Tokenizer::from_gguf(&vocabulary("smollm")).unwrap();
        let text = "na\u{ef}ve caf\u{e9} \u{1f30a}!";
        let mut stream = tokenizer.stream();
        let parts: Vec<String> = tokenizer.encode(text).unwrap().into_iter().map(|t| stream(t).unwrap()).collect();
        assert_eq!(parts.concat(), text);
        assert!(parts.iter().all(|part| !part.contains('\u{fffd}')));
        assert!(parts.iter().any(String::is_empty));
    }

    #[test]
    fn a_saved_tokenizer_reads_back() {
        let directory = std::env::temp_dir().join(format!("latent-attention-tokenizer-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let tokenizer = Tokenizer::from_gguf(&vocabulary("llama-bpe")).unwrap();
        tokenizer.save(&directory).unwrap();
        let again = Tokenizer::from_directory(&directory, Some(0), &[1]).unwrap();
        let text = "the year 1841";
        assert_eq!(again.encode(text).unwrap(), tokenizer.encode(text).unwrap());
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn unknown_kinds_say_what_to_do() {
        let message = |vocabulary| Tokenizer::from_gguf(&vocabulary).err().unwrap().to_string();
        let mut sentence_piece = vocabulary("default");
        sentence_piece.model = "llama".into();
        let kind = message(sentence_piece);
        assert!(kind.contains("`llama`") && kind.contains("tokenizer.json"), "{kind}");
        let pre = message(vocabulary("tekken"));
        assert!(pre.contains("`tekken`") && pre.contains("tokenizer.json"), "{pre}");
        let mut broken = vocabulary("smollm");
        broken.merges.push("nothing-to-split".into());
        assert!(message(broken).contains("nothing-to-split"));
    }
}
