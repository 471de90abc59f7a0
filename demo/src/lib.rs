//! Latent attention shown on a real model: conversion, evaluation and generation.
#![deny(missing_docs)]

pub mod args;
pub mod dense;
pub mod latent;
pub mod plot;
pub mod table;
pub mod tensors;
pub mod tokenizer;
pub mod transformer;
