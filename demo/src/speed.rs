//! How fast models read a text and write on, side by side in one process.

use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use latent_attention_lm::evaluate::measure;
use latent_attention_lm::transformer::{AttentionStep, Transformer};

/// Rounds, each of every contestant in turn: what else the machine does then meets all of them.
const ROUNDS: usize = 3;

/// A model that is timed.
pub trait Contestant {
    /// What the table calls it.
    fn name(&self) -> String;

    /// Reads a text from its beginning; returns the perplexity of every token but the first.
    ///
    /// # Errors
    /// Whatever goes wrong.
    fn read(&mut self, tokens: &[u32]) -> Result<f64>;

    /// Reads a prompt, and then writes so many tokens, each the likeliest, one by one; returns how long the latter took.
    ///
    /// # Errors
    /// Whatever goes wrong.
    fn write(&mut self, prompt: &[u32], count: usize) -> Result<Duration>;
}

/// A model that runs here.
pub struct Ours<'a> {
    /// What the table calls it.
    pub name: String,
    /// Everything but attention.
    pub transformer: &'a Transformer,
    /// Its attention.
    pub attention: &'a mut dyn AttentionStep,
}

impl Contestant for Ours<'_> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn read(&mut self, tokens: &[u32]) -> Result<f64> {
        Ok(measure(&self.name, self.transformer, self.attention, tokens, None)?.perplexity)
    }

    fn write(&mut self, prompt: &[u32], count: usize) -> Result<Duration> {
        self.attention.reset();
        let mut hidden = self.transformer.forward(self.attention, prompt, 0)?;
        let started = Instant::now();
        for position in prompt.len()..prompt.len() + count {
            let next = self.transformer.greedy(&hidden)?;
            hidden = self.transformer.forward(self.attention, &[next], position)?;
        }
        Ok(started.elapsed())
    }
}

/// What was measured of one model.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    name: String,
    perplexity: f64,
    /// Of all rounds, sorted.
    reading: Vec<f64>,
    /// Of all rounds, sorted.
    writing: Vec<f64>,
}

/// Times of several models.
#[derive(Clone, Debug, PartialEq)]
pub struct Speeds {
    rows: Vec<Row>,
    threads: usize,
    read: usize,
    written: usize,
}

impl Speeds {
    /// Lets all read `text` and continue `prompt` by `count` tokens, in alternating rounds.
    ///
    /// # Errors
    /// If there is nothing to read or to write, or one of them fails.
    pub fn measure(
        contestants: &mut [&mut dyn Contestant],
        text: &[u32],
        prompt: &[u32],
        count: usize,
    ) -> Result<Self> {
        ensure!(text.len() > 1 && !prompt.is_empty() && count > 0, "there is nothing to read or to write");
        let row = |contestant: &&mut dyn Contestant| Row {
            name: contestant.name(),
            perplexity: 0.0,
            reading: Vec::new(),
            writing: Vec::new(),
        };
        let mut rows: Vec<Row> = contestants.iter().map(row).collect();
        for _ in 0..ROUNDS {
            for (contestant, row) in contestants.iter_mut().zip(&mut rows) {
                let started = Instant::now();
                row.perplexity = contestant.read(text)?;
                row.reading.push(started.elapsed().as_secs_f64());
                row.writing.push(contestant.write(prompt, count)?.as_secs_f64());
            }
        }
        for row in &mut rows {
            row.reading.sort_unstable_by(f64::total_cmp);
            row.writing.sort_unstable_by(f64::total_cmp);
        }
        Ok(Self { rows, threads: rayon::current_num_threads(), read: text.len(), written: count })
    }
}

impl Display for Speeds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { rows, threads, read, written } = self;
        writeln!(
            f,
            "Speed on {threads} threads: a text of {read} tokens read for its perplexity, and {written} tokens written one by \
             one; medians of {ROUNDS} alternating rounds:\n"
        )?;
        let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max(5);
        writeln!(f, "| {:<width$} | perplexity | reading, s | tokens/s |", "model")?;
        writeln!(f, "| {} | ----------:| ----------:| --------:|", "-".repeat(width))?;
        for Row { name, perplexity, reading, writing } in rows {
            let (reading, writing) = (median(reading), median(writing));
            let rate = *written as f64 / writing;
            writeln!(f, "| {name:<width$} | {perplexity:>10.2} | {reading:>10.2} | {rate:>8.1} |")?;
        }
        Ok(())
    }
}

/// The middle one of sorted numbers.
fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(&'static str, u64);

    impl Contestant for Fake {
        fn name(&self) -> String {
            self.0.into()
        }

        fn read(&mut self, tokens: &[u32]) -> Result<f64> {
            Ok(tokens.len() as f64)
        }

        fn write(&mut self, _prompt: &[u32], count: usize) -> Result<Duration> {
            Ok(Duration::from_millis(self.1 * count as u64))
        }
    }

    #[test]
    fn every_contestant_has_a_row() {
        let (mut slow, mut fast) = (Fake("a slow one", 20), Fake("fast", 5));
        let speeds = Speeds::measure(&mut [&mut slow, &mut fast], &[0; 9], &[1], 4).unwrap();
        let text = speeds.to_string();
        let lines: Vec<_> = text.lines().skip(2).collect();
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{text}");
        assert!(lines[2].contains("a slow one") && lines[2].ends_with("|     50.0 |"), "{text}");
        assert!(lines[3].contains(" 9.00 |") && lines[3].ends_with("|    200.0 |"), "{text}");
    }
}
