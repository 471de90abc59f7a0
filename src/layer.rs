//! One attention layer's step on a device, from projected tokens to the input of the output projection.

mod heads;

use half::bf16;

use self::heads::{Heads, HeadsWorkspace, NewTokens};
use crate::cache::CacheLayout;
use crate::device::{Buffer, Device, Stream, Tensor, TensorMut, View, ViewMut};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::ops::check;
use crate::ops::{
    AbsorbConfig, AbsorbQueryArgs, Batch, CacheViewMut, Decode, DecodeArgs, DecodeConfig, DeviceCache, DeviceNorm,
    ExpandOutput, ExpandOutputArgs, KernelFamily, Plan, Prepare, RopeAppendArgs, RopeAppendConfig, RotationBuffers,
    SplitPolicy,
};
use crate::weights::LatentAttention;

/// What stays the same from step to step, for all layers of a model alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerConfig {
    /// How the cache's bytes lie.
    pub layout: CacheLayout,
    /// How the tokens that a query sees are divided among the device's blocks. With [`SplitPolicy::Fixed`] the whole step
    /// is batch-invariant: a token's output and cached record are the same to the bit whatever else is in the batch, and
    /// whether its sequence comes token by token or in chunks of prefill.
    pub policy: SplitPolicy,
    /// Which kernels of [`Decode`] may serve the layer.
    pub kernels: KernelFamily,
    /// Most query tokens in a step.
    pub max_query_tokens: usize,
    /// Most tokens in a sequence.
    pub max_tokens: usize,
}

impl LayerConfig {
    /// Steps of up to `max_query_tokens` query tokens over sequences of up to `max_tokens` tokens, evenly divided.
    #[must_use]
    pub fn new(layout: CacheLayout, max_query_tokens: usize, max_tokens: usize) -> Self {
        let (policy, kernels) = (SplitPolicy::Balanced, KernelFamily::Measured);
        Self { layout, policy, kernels, max_query_tokens, max_tokens }
    }

    /// The same with another way to divide work.
    #[must_use]
    pub fn with_policy(self, policy: SplitPolicy) -> Self {
        Self { policy, ..self }
    }

    /// The same with other kernels of [`Decode`].
    #[must_use]
    pub fn with_kernels(self, kernels: KernelFamily) -> Self {
        Self { kernels, ..self }
    }
}

/// The arguments of [`LatentAttentionLayer::step`]: what the engine's own projections made of the new tokens of a batch,
/// T in all, and where to put what comes of it. Slices of wider tensors will do.
#[derive(Debug)]
pub struct StepArgs<'a, 'b> {
    /// `[T, H, R]`, not yet rotated.
    pub q_rope: Tensor<'a, bf16>,
    /// `[T, H, Dn]`.
    pub q_nope: Tensor<'a, bf16>,
    /// `[T, Gr, R]`, not yet rotated.
    pub k_rope: Tensor<'a, bf16>,
    /// `[T, 1, L]`: the down-projection's output, before norm and latent bias.
    pub c_kv: Tensor<'a, bf16>,
    /// `[T]`: row of the cosine and sine tables.
    pub positions: View<'a, i32>,
    /// `[T]`: where each token goes in the cache; -1 stores nothing.
    pub slots: View<'a, i64>,
    /// The batch, divided by [`LatentAttentionLayer::plan`].
    pub plan: &'a mut Plan<'b>,
    /// What lies between the launches.
    pub workspace: &'a mut LayerWorkspace,
    /// In and out: the layer's cache.
    pub cache: CacheViewMut<'a>,
    /// Out: `[T, H, Dv]`, the output projection's input.
    pub out: TensorMut<'a, bf16>,
    /// `[2]`: as [`RopeAppendArgs::counters`].
    pub counters: Option<ViewMut<'a, u64>>,
}

/// What a step needs between its launches; one serves all layers of a model in turn.
#[derive(Debug)]
pub struct LayerWorkspace {
    q_rotated: Buffer<bf16>,
    q_latent: Buffer<bf16>,
    o_latent: Buffer<bf16>,
    lse: Buffer<f32>,
    heads: Option<HeadsWorkspace>,
}

/// One latent-attention layer over a paged cache, on a device. The query, key and output projections stay with the
/// engine, whose matrix products they are; everything between them is here, in three launches: prepare (absorb and
/// `rope_append`, two launches where tokens are many), attend, expand. Norms over heads take two more in front: the new keys'
/// up-projection, and `head_norm`.
/// [`ReferenceLayer`](crate::reference::ReferenceLayer) says what it computes.
#[derive(Debug)]
pub struct LatentAttentionLayer {
    geometry: Geometry,
    config: LayerConfig,
    rotation: RotationBuffers,
    norm: Option<(Buffer<f32>, f32)>,
    bias: Option<Buffer<f32>>,
    up_key: Buffer<bf16>,
    up_value: Buffer<bf16>,
    value_bias: Option<Buffer<f32>>,
    heads: Option<Heads>,
    prepare: Prepare,
    decode: Decode,
    expand: ExpandOutput,
}

impl LatentAttentionLayer {
    /// Copies a layer's weights to the device, the up-projections in bf16, and loads its kernels. `tables` are the
    /// model's cosines and sines, already on the device; the layer's own frequencies index them.
    ///
    /// # Errors
    /// As [`LatentAttention::validate`]; [`Error::Shape`] if the layout is another geometry's, [`Error::Index`] if the
    /// tables lack a frequency, [`Error::Unsupported`] for norms over heads beside one over the latent; what the operations
    /// say of the device.
    pub fn new(
        device: &Device,
        weights: &LatentAttention,
        tables: &RotationBuffers,
        config: LayerConfig,
    ) -> Result<Self> {
        weights.validate()?;
        let geometry = weights.geometry;
        let rounded = |values: &[f32]| -> Vec<bf16> { values.iter().map(|&value| bf16::from_f32(value)).collect() };
        let upload = |values: &Vec<f32>| device.upload(values);
        let decode = DecodeConfig::new(
            geometry,
            config.layout,
            weights.scale as f32,
            config.max_query_tokens,
            config.max_tokens,
        );
        let absorb = AbsorbConfig::new(geometry).with_policy(config.policy);
        Ok(Self {
            geometry,
            config,
            rotation: tables.with_index(&weights.frequencies)?,
            norm: weights.latent_norm.as_ref().map(|norm| Ok((upload(&norm.gain)?, norm.epsilon))).transpose()?,
            bias: weights.latent_bias.as_ref().map(upload).transpose()?,
            up_key: device.upload(&rounded(weights.up_key.data()))?,
            up_value: device.upload(&rounded(weights.up_value.data()))?,
            value_bias: weights.value_bias.as_ref().map(upload).transpose()?,
            heads: weights.head_norms.as_ref().map(|norms| Heads::new(device, weights, norms, absorb)).transpose()?,
            prepare: Prepare::new(device, absorb, RopeAppendConfig::new(geometry, config.layout, weights.pairing))?,
            decode: Decode::new(device, decode.with_policy(config.policy).with_kernels(config.kernels))?,
            expand: ExpandOutput::new(device, absorb)?,
        })
    }

    /// The layer's sizes.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// What it was made for.
    #[must_use]
    pub fn config(&self) -> &LayerConfig {
        &self.config
    }

    /// An empty cache of `pages` pages.
    ///
    /// # Errors
    /// As [`DeviceCache::new`].
    pub fn new_cache(&self, pages: usize) -> Result<DeviceCache> {
        DeviceCache::new(self.up_key.view().device(), self.config.layout, pages)
    }

    /// Memory for what lies between the launches of a step. Layers of the same geometry and configuration can share it.
    ///
    /// # Errors
    /// [`Error::Driver`] if there is not enough.
    pub fn new_workspace(&self) -> Result<LayerWorkspace> {
        let (device, g) = (self.up_key.view().device().clone(), &self.geometry);
        let rows = self.config.max_query_tokens * g.query_heads;
        Ok(LayerWorkspace {
            q_rotated: device.allocate(rows * g.rope_dim)?,
            q_latent: device.allocate(rows * g.latent_rank)?,
            o_latent: device.allocate(rows * g.latent_rank)?,
            lse: device.allocate(rows)?,
            heads: self
                .heads
                .as_ref()
                .map(|_| HeadsWorkspace::new(&device, g, self.config.max_query_tokens))
                .transpose()?,
        })
    }

    /// Bytes of workspace that [`LatentAttentionLayer::plan`] needs.
    #[must_use]
    pub fn plan_bytes(&self) -> usize {
        self.decode.workspace_bytes()
    }

    /// Divides a batch of `query_tokens` query tokens among the device's blocks. Its lengths count the tokens that the
    /// step appends. The plan serves all layers of the same geometry and configuration, one step each.
    ///
    /// # Errors
    /// As [`Decode::plan`].
    pub fn plan<'a>(
        &self,
        stream: &Stream,
        batch: &Batch<'a>,
        query_tokens: usize,
        workspace: ViewMut<'a, u8>,
    ) -> Result<Plan<'a>> {
        self.decode.plan(stream, batch, query_tokens, workspace)
    }

    /// One step of a batch: rotates and appends the new tokens, then lets them attend to their sequences through the
    /// cache, themselves included, all in the latent space.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::OtherDevice`], [`Error::Capacity`] or [`Error::Config`] says which argument does not fit,
    /// before anything is appended; as [`Kernel::launch`](crate::device::Kernel::launch).
    pub fn step(&self, stream: &Stream, args: StepArgs) -> Result<()> {
        let StepArgs { plan, workspace, mut cache, .. } = args;
        let (g, tokens) = (&self.geometry, args.slots.len());
        if tokens != plan.query_tokens() {
            return Err(Error::Shape {
                what: "slots",
                expected: format!("[query tokens of the plan {}]", plan.query_tokens()),
                got: format!("{tokens} elements"),
            });
        }
        let rows = tokens * g.query_heads;
        let rope_shape = [tokens, g.query_heads, g.rope_dim];
        let latent_shape = [tokens, g.query_heads, g.latent_rank];
        // What later launches could refuse is looked at before the first one that writes the cache.
        self.decode.check_plan(plan, &cache.view())?;
        let out = ("value", g.value_dim);
        check::tensor_mut(
            "out",
            stream.device(),
            &args.out,
            [("tokens", tokens), ("query heads", g.query_heads), out],
        )?;
        let up_key = Tensor::dense(self.up_key.view(), [g.kv_heads, g.nope_dim, g.latent_rank])?;
        let mut q_rotated = TensorMut::dense(workspace.q_rotated.view_mut(), rope_shape)?;
        let (mut q_rope, mut q_nope, mut key_norm) = (Some(args.q_rope), args.q_nope, None);
        if let Some(heads) = &self.heads {
            let workspace = workspace.heads.as_mut().ok_or_else(|| Error::Config {
                what: "workspace".into(),
                why: "is of a layer without norms over heads".into(),
            })?;
            let tokens =
                NewTokens { q_rope: q_rope.take(), q_nope, k_rope: args.k_rope.clone(), c_kv: args.c_kv.clone() };
            heads.normalise(stream, g, tokens, up_key.clone(), workspace, q_rotated.reborrow())?;
            q_nope = workspace.q_nope(g, args.slots.len())?;
            key_norm = Some(heads.key_norm(g, workspace, args.slots.len())?);
        }
        self.prepare.run(
            stream,
            AbsorbQueryArgs {
                up_key,
                q_nope,
                q_latent: TensorMut::dense(workspace.q_latent.view_mut(), latent_shape)?,
            },
            RopeAppendArgs {
                q_rope,
                q_rotated: Some(q_rotated),
                k_rope: args.k_rope,
                c_kv: args.c_kv,
                positions: Some(args.positions),
                slots: args.slots,
                rotation: Some(self.rotation.rotation()),
                norm: self.norm.as_ref().map(|(gain, epsilon)| DeviceNorm { gain: gain.view(), epsilon: *epsilon }),
                bias: self.bias.as_ref().map(Buffer::view),
                key_norm,
                cache: cache.reborrow(),
                counters: args.counters,
            },
        )?;
        self.decode.run(
            stream,
            plan,
            DecodeArgs {
                q_latent: Tensor::dense(workspace.q_latent.view(), latent_shape)?,
                q_rope: Tensor::dense(workspace.q_rotated.view(), rope_shape)?,
                cache: cache.view(),
                o_latent: workspace.o_latent.view_mut().slice(..rows * g.latent_rank)?,
                lse: workspace.lse.view_mut().slice(..rows)?,
            },
        )?;
        self.expand.run(
            stream,
            ExpandOutputArgs {
                up_value: Tensor::dense(self.up_value.view(), [g.kv_heads, g.value_dim, g.latent_rank])?,
                value_bias: self.value_bias.as_ref().map(Buffer::view),
                o_latent: Tensor::dense(workspace.o_latent.view(), latent_shape)?,
                out: args.out,
            },
        )
    }
}
