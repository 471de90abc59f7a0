//! Latent attention shown on a real model: conversion, evaluation and generation.
#![deny(missing_docs)]

pub mod dense;
pub mod tensors;
pub mod tokenizer;
pub mod transformer;
