//! A frame's numbers as they are saved.

use latent_attention::Result;
use latent_attention::load::{Block, ModelParts};
use latent_attention::weights::{Linear, Matrix, RmsNorm};

use super::{Frame, Norm, Projection};

impl ModelParts for Frame {
    fn block(&self, layer: usize) -> Result<Block> {
        let block = self.blocks.get(layer).ok_or_else(|| latent_attention::Error::Index {
            what: "layer".into(),
            got: i64::try_from(layer).unwrap_or(i64::MAX),
            bound: format!("0..{}", self.layers()),
        })?;
        let both = saved(&block.gate_up)?;
        let rows = both.weight.rows() / 2;
        Ok(Block {
            attention_norm: norm(&block.attention_norm)?,
            mlp_norm: norm(&block.mlp_norm)?,
            gate: both.select_outputs(&(0..rows).collect::<Vec<_>>()),
            up: both.select_outputs(&(rows..2 * rows).collect::<Vec<_>>()),
            down: saved(&block.down)?,
        })
    }

    fn embedding(&self) -> Result<Matrix> {
        matrix(&self.embedding)
    }

    fn final_norm(&self) -> Result<RmsNorm> {
        norm(&self.final_norm)
    }

    fn lm_head(&self) -> Result<Option<Matrix>> {
        self.head.as_ref().map(matrix).transpose()
    }
}

/// That candle cannot copy from a frame's memory is no input's fault, but it says so.
fn numbers(tensor: &candle_core::Tensor) -> Result<Vec<f32>> {
    let read = || tensor.flatten_all()?.to_vec1();
    read().map_err(|why: candle_core::Error| latent_attention::Error::Config {
        what: "trained weights".into(),
        why: why.to_string(),
    })
}

fn matrix(tensor: &candle_core::Tensor) -> Result<Matrix> {
    let (rows, cols) = (tensor.dims()[0], tensor.dims().get(1).copied().unwrap_or(1));
    Matrix::new(rows, cols, numbers(tensor)?)
}

fn saved(projection: &Projection) -> Result<Linear> {
    let bias = projection.bias.as_ref().map(numbers).transpose()?;
    Ok(Linear { weight: matrix(&projection.weight)?, bias })
}

fn norm(norm: &Norm) -> Result<RmsNorm> {
    Ok(RmsNorm { gain: numbers(&norm.gain)?, epsilon: norm.epsilon as f32 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiny;

    #[test]
    fn what_a_frame_was_made_of_is_what_it_gives_back() {
        let frame = tiny::frame();
        let again = Frame::new(
            frame.embedding().unwrap(),
            (0..frame.layers()).map(|layer| Ok(ModelParts::block(&frame, layer)?)),
            ModelParts::final_norm(&frame).unwrap(),
            frame.lm_head().unwrap(),
        );
        let (mut first, mut second) = (Vec::new(), Vec::new());
        frame.visit(&mut |name, tensor| first.push((name.to_owned(), numbers(tensor).unwrap())));
        again.unwrap().visit(&mut |name, tensor| second.push((name.to_owned(), numbers(tensor).unwrap())));
        assert_eq!(first, second);
        assert!(ModelParts::block(&frame, frame.layers()).is_err());
    }
}
