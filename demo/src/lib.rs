//! Latent attention shown on a real model: conversion, evaluation and generation.
#![deny(missing_docs)]

pub mod args;
pub mod engine;
pub mod generate;
pub mod kernels;
pub mod latent;
pub mod llama;
pub mod phases;
pub mod plot;
pub mod run;
pub mod speed;
pub mod table;
pub mod variants;
