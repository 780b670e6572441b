/* libvpx's external-rate-control functions, implemented for vpxrc.
 *
 * A static link takes this object before the archive member with the same symbols
 * (vp9/encoder/vp9_ext_ratectrl.c), so these are the functions that the encoder calls. The
 * EXT_RATECTRL they are given is a member of the encoder (VP9_COMP), so its whole state is in
 * reach.
 *
 * Per coded frame the encoder calls, in this order:
 *   get_encodeframe_decision  once per frame of the group, in the TPL pass at group position 1
 *   get_frame_rdmult          once
 *   get_encodeframe_decision  once; not for frames that are shown again
 *   update_encodeframe_result once
 * The encoder tests the function pointers and the type flags in EXT_RATECTRL before it calls.
 * Taking get_encodeframe_decision away and giving it back steers which of its two paths libvpx
 * takes: its own TPL q estimates and TPL lambda, exactly as without us, or ours.
 */
#include "rate_control_seam.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "region_of_interest.h"
#include "vp9/common/vp9_quant_common.h"
#include "vp9/encoder/vp9_encoder.h"
#include "vp9/encoder/vp9_ext_ratectrl.h"
#include "vp9/encoder/vp9_rd.h"
#include "vpx/vp8cx.h"
#include "vpx_mem/vpx_mem.h"

_Static_assert(VPXRC_MAX_GROUP == MAX_STATIC_GF_GROUP_LENGTH + 2, "group length of this libvpx");
_Static_assert((int)VPXRC_KEY == (int)KF_UPDATE && (int)VPXRC_LEAF == (int)LF_UPDATE &&
                   (int)VPXRC_GOLDEN == (int)GF_UPDATE && (int)VPXRC_ARF == (int)ARF_UPDATE &&
                   (int)VPXRC_OVERLAY == (int)OVERLAY_UPDATE &&
                   (int)VPXRC_SHOW_EXISTING == (int)USE_BUF_FRAME,
               "update types of this libvpx");

/* sb_params_list[].rdmult * 256 / (rdmult + 1) is the scale that libvpx keeps, in 1/256. */
enum { kScaleOne = 256 };

/* HIGH_PRECISION_MV_QTHRESH of vp9_encoder.c */
enum { kHighPrecisionMvQ = 200 };

/* setup_frame() of vp9_encoder.c gives ARFs of layers up to here one frame context. */
enum { kDeepestSharedContext = 3 };

/* The statistics of a frame are doubles, one after the other, up to the layer's id. */
_Static_assert(offsetof(FIRSTPASS_STATS, new_mv_count) ==
                       (VPXRC_FIRST_PASS_FIELDS - 1) * sizeof(double) &&
                   offsetof(FIRSTPASS_STATS, spatial_layer_id) ==
                       VPXRC_FIRST_PASS_FIELDS * sizeof(double),
               "first-pass statistics of this libvpx");

_Static_assert(VPXRC_TRACE_FIELDS == 2 + SWITCHABLE_FILTERS, "filters of this libvpx");

typedef struct seam_state {
  vpxrc_controller *controller;
  int num_groups;
  int16_t plan[VPXRC_MAX_GROUP]; /* provisional q indices of the current group */
  int has_plan;
  int has_trace; /* the frame at hand has one */
  int32_t trace[VPXRC_TRACE_FIELDS];
  int deciding;    /* the next get_encodeframe_decision is the real one */
  int tpl_q_index; /* the TPL pass's for the frame at hand; -1 = none */
  int last_group_size;
  int had_tpl;          /* the current group's TPL pass has run */
  int kept_layer_depth; /* the frame's own, while libvpx is shown another; -1 = none */
  vpxrc_region_state region;
} seam_state;

static VP9_COMP *encoder_of(EXT_RATECTRL *rc) {
  return (VP9_COMP *)((char *)rc - offsetof(VP9_COMP, ext_ratectrl));
}

static seam_state *state_of(EXT_RATECTRL *rc) { return (seam_state *)rc->model; }

/* Placeholders: libvpx only asks whether the pointers are set and then calls vp9_extrc_*. */
static vpx_rc_status_t unused_first_pass(vpx_rc_model_t m, const vpx_rc_firstpass_stats_t *s) {
  (void)m, (void)s;
  return VPX_RC_ERROR;
}
static vpx_rc_status_t unused_decision(vpx_rc_model_t m, const int i,
                                       vpx_rc_encodeframe_decision_t *d) {
  (void)m, (void)i, (void)d;
  return VPX_RC_ERROR;
}
static vpx_rc_status_t unused_result(vpx_rc_model_t m, const vpx_rc_encodeframe_result_t *r) {
  (void)m, (void)r;
  return VPX_RC_ERROR;
}
static vpx_rc_status_t unused_rdmult(vpx_rc_model_t m, const vpx_rc_encodeframe_info_t *i, int *r) {
  (void)m, (void)i, (void)r;
  return VPX_RC_ERROR;
}

static void listen_for_decisions(EXT_RATECTRL *rc, int listen) {
  rc->funcs.get_encodeframe_decision = listen ? unused_decision : NULL;
}

vpx_codec_err_t vpxrc_seam_attach(vpx_codec_ctx_t *codec, vpxrc_controller *controller) {
  vpx_rc_funcs_t funcs;
  memset(&funcs, 0, sizeof(funcs));
  /* VPX_RC_RDMULT makes libvpx announce each frame; the answer VPX_DEFAULT_RDMULT changes nothing.
   * send_tpl_gop_stats stays NULL, because with it libvpx runs TPL for more groups than without. */
  funcs.rc_type = VPX_RC_RDMULT | (controller->observe ? 0 : VPX_RC_QP);
  funcs.send_firstpass_stats = unused_first_pass;
  funcs.update_encodeframe_result = unused_result;
  funcs.get_frame_rdmult = unused_rdmult;
  funcs.priv = controller;
  return vpx_codec_control_(codec, VP9E_SET_EXTERNAL_RATE_CONTROL, &funcs);
}

vpx_codec_err_t vp9_extrc_init(EXT_RATECTRL *rc) {
  if (rc == NULL) return VPX_CODEC_INVALID_PARAM;
  memset(rc, 0, sizeof(*rc));
  return VPX_CODEC_OK;
}

vpx_codec_err_t vp9_extrc_create(vpx_rc_funcs_t funcs, vpx_rc_config_t config, EXT_RATECTRL *rc) {
  if (rc == NULL || funcs.priv == NULL) return VPX_CODEC_INVALID_PARAM;
  vp9_extrc_delete(rc);
  seam_state *const state = vpx_calloc(1, sizeof(*state));
  if (state == NULL) return VPX_CODEC_MEM_ERROR;
  state->controller = funcs.priv;
  state->kept_layer_depth = -1;
  rc->funcs = funcs;
  rc->ratectrl_config = config;
  rc->model = state;
  rc->ext_rdmult = VPX_DEFAULT_RDMULT;
  rc->ready = 1;
  return VPX_CODEC_OK;
}

vpx_codec_err_t vp9_extrc_delete(EXT_RATECTRL *rc) {
  if (rc == NULL) return VPX_CODEC_INVALID_PARAM;
  if (rc->ready) vpx_free(rc->model);
  return vp9_extrc_init(rc);
}

vpx_codec_err_t vp9_extrc_send_firstpass_stats(EXT_RATECTRL *rc, const FIRST_PASS_INFO *info) {
  if (rc == NULL || !rc->ready) return VPX_CODEC_OK;
  const int n = info->num_frames;
  double *const rows = vpx_malloc(sizeof(*rows) * VPXRC_FIRST_PASS_FIELDS * (n > 0 ? n : 1));
  if (rows == NULL) return VPX_CODEC_MEM_ERROR;
  double *row = rows;
  for (int i = 0; i < n; ++i, row += VPXRC_FIRST_PASS_FIELDS)
    memcpy(row, &info->stats[i], sizeof(*row) * VPXRC_FIRST_PASS_FIELDS);
  const vpxrc_controller *const controller = state_of(rc)->controller;
  const int failed = controller->first_pass(controller->user, rows, n);
  vpx_free(rows);
  return failed ? VPX_CODEC_ERROR : VPX_CODEC_OK;
}

/* Never called: send_tpl_gop_stats is not set. libvpx links against it. */
vpx_codec_err_t vp9_extrc_send_tpl_stats(EXT_RATECTRL *rc, const VpxTplGopStats *stats) {
  (void)rc, (void)stats;
  return VPX_CODEC_ERROR;
}

static int group_has_tpl(const VP9_COMP *cpi) {
  const GF_GROUP *const group = &cpi->twopass.gf_group;
  /* should_run_tpl() in vp9_encoder.c, without an external consumer */
  return cpi->sf.enable_tpl_model && group->index >= 1 && group->update_type[1] == ARF_UPDATE;
}

int vpxrc_seam_tpl(const void *encoder, int position, int *rows, int *cols, double *out) {
  const VP9_COMP *const cpi = encoder;
  enum { kStep = 4 }; /* mode-info units of 8 samples per 32x32 block */
  if (position < 1 || position >= MAX_ARF_GOP_SIZE || !group_has_tpl(cpi)) return 0;
  const TplDepFrame *const frame = &cpi->tpl_stats[position];
  if (!frame->is_valid) return 0;
  *rows = (cpi->common.mi_rows + kStep - 1) / kStep;
  *cols = (cpi->common.mi_cols + kStep - 1) / kStep;
  if (out == NULL) return 1;
  const double unit = 1 << ((int)cpi->common.bit_depth - 8);
  for (int r = 0; r < *rows; ++r) {
    for (int c = 0; c < *cols; ++c, out += VPXRC_TPL_FIELDS) {
      const TplDepStats *const s = &frame->tpl_stats_ptr[r * kStep * frame->stride + c * kStep];
      out[0] = (double)s->intra_cost / unit;
      out[1] = (double)s->inter_cost / unit;
      out[2] = (double)s->mc_flow / unit;
      out[3] = (double)s->mc_dep_cost / unit;
      out[4] = (double)s->mc_ref_cost / unit;
      out[5] = s->ref_frame_index;
      out[6] = s->mv.as_mv.row;
      out[7] = s->mv.as_mv.col;
    }
  }
  return 1;
}

int vpxrc_ac_quantizer(int q_index, int bit_depth) {
  return vp9_ac_quant(q_index, 0, (vpx_bit_depth_t)bit_depth);
}

/* Sum over the mode-info units of a rectangle, clipped to the frame. */
static void sum_tpl(const VP9_COMP *cpi, const TplDepFrame *frame, int row0, int col0,
                    int size_rows, int size_cols, int64_t *intra_cost, int64_t *mc_dep_cost) {
  const int row1 = VPXMIN(row0 + size_rows, cpi->common.mi_rows);
  const int col1 = VPXMIN(col0 + size_cols, cpi->common.mi_cols);
  *intra_cost = *mc_dep_cost = 0;
  for (int row = row0; row < row1; ++row) {
    for (int col = col0; col < col1; ++col) {
      const TplDepStats *const s = &frame->tpl_stats_ptr[row * frame->stride + col];
      *intra_cost += s->intra_cost;
      *mc_dep_cost += s->mc_dep_cost;
    }
  }
}

/* r0 as in encode_frame_internal() of vp9_encodeframe.c. */
static double frame_r0(const VP9_COMP *cpi, const TplDepFrame *frame) {
  int64_t intra_cost, mc_dep_cost;
  sum_tpl(cpi, frame, 0, 0, cpi->common.mi_rows, cpi->common.mi_cols, &intra_cost, &mc_dep_cost);
  return mc_dep_cost > 0 ? (double)intra_cost / (double)mc_dep_cost : NAN;
}

/* References of the frames of a group by position, as in init_gop_frames() of vp9_tpl_model.c. */
static void plan_references(const GF_GROUP *gf, vpxrc_group *out) {
  int stack[MAX_ARF_LAYERS + 1];
  int depth = 0;
  int last = 0, golden = 0, altref = gf->update_type[0] == KF_UPDATE ? 0 : -1;
  for (int i = 0; i < out->size; ++i) {
    const int refs[3] = {last, golden, altref};
    for (int r = 0; r < 3; ++r) out->references[i][r] = i == 0 ? -1 : refs[r];
    if (i == 0) continue;
    switch (gf->update_type[i]) {
      case ARF_UPDATE:
        if (depth <= MAX_ARF_LAYERS) stack[depth++] = altref;
        altref = i;
        break;
      case LF_UPDATE: last = i; break;
      case USE_BUF_FRAME:
        last = altref;
        altref = depth > 0 ? stack[--depth] : -1;
        break;
      default: break;
    }
  }
}

static int announce_group(VP9_COMP *cpi, seam_state *state) {
  const GF_GROUP *const gf = &cpi->twopass.gf_group;
  vpxrc_group group;
  memset(&group, 0, sizeof(group));
  group.index = state->num_groups++;
  group.size = VPXMAX(1, VPXMIN(gf->gf_group_size, VPXRC_MAX_GROUP));
  group.first_show_index = (int)cpi->common.current_video_frame;
  group.max_layer_depth = gf->max_layer_depth;
  group.key_boost = cpi->rc.kf_boost;
  group.is_key_forced = cpi->rc.this_key_frame_forced != 0;
  group.zero_motion_share = cpi->twopass.kf_zeromotion_pct;
  for (int i = 0; i < group.size; ++i) {
    group.update_type[i] = gf->update_type[i];
    group.layer_depth[i] = gf->layer_depth[i];
    group.show_index[i] = group.first_show_index + (i == 0 ? 0 : gf->frame_gop_index[i]);
    group.bit_allocation[i] = gf->bit_allocation[i];
    group.gfu_boost[i] = gf->gfu_boost[i];
  }
  plan_references(gf, &group);
  for (int i = 0; i < VPXRC_MAX_GROUP; ++i) state->plan[i] = VPXRC_LIBVPX_Q;
  const vpxrc_controller *const controller = state->controller;
  const int failed = controller->group(controller->user, &group, state->plan);
  state->has_plan = 0;
  for (int i = 0; i <= group.size; ++i) state->has_plan |= state->plan[i] != VPXRC_LIBVPX_Q;
  return failed;
}

vpx_codec_err_t vp9_extrc_get_frame_rdmult(EXT_RATECTRL *rc, int show_index, int coding_index,
                                           int gop_index, FRAME_UPDATE_TYPE update_type,
                                           int gop_size, int use_alt_ref,
                                           RefCntBuffer *ref_frame_bufs[MAX_INTER_REF_FRAMES],
                                           int ref_frame_flags, int *rdmult) {
  (void)show_index, (void)coding_index, (void)update_type;
  (void)use_alt_ref, (void)ref_frame_bufs, (void)ref_frame_flags;
  VP9_COMP *const cpi = encoder_of(rc);
  seam_state *const state = state_of(rc);
  *rdmult = VPX_DEFAULT_RDMULT;
  /* Position 0 was the trailing overlay of the TPL pass of the group before. */
  if (gop_index != 0) {
    state->had_tpl = group_has_tpl(cpi);
    state->tpl_q_index =
        state->had_tpl && gop_index < MAX_ARF_GOP_SIZE ? cpi->tpl_stats[gop_index].base_qindex : -1;
    state->last_group_size = gop_size;
  } else {
    state->tpl_q_index = state->had_tpl && state->last_group_size < MAX_ARF_GOP_SIZE
                             ? cpi->tpl_stats[state->last_group_size].base_qindex
                             : -1;
    state->had_tpl = 0;
    if (announce_group(cpi, state)) return VPX_CODEC_ERROR;
  }
  state->deciding = !state->controller->observe && !cpi->common.show_existing_frame;
  if (state->deciding) listen_for_decisions(rc, 1);
  return VPX_CODEC_OK;
}

static vpxrc_place place_of(const VP9_COMP *cpi, const seam_state *state) {
  const VP9_COMMON *const cm = &cpi->common;
  const GF_GROUP *const gf = &cpi->twopass.gf_group;
  const int again = cm->show_existing_frame;
  const vpxrc_place place = {
      .coding_index = again ? -1 : cm->current_frame_coding_index,
      .show_index = again ? (int)cm->current_video_frame
                          : get_ref_cnt_buffer(cm, cm->new_fb_idx)->frame_index,
      .group_index = state->num_groups - 1,
      .group_position = gf->index,
      .update_type = gf->update_type[gf->index],
      .layer_depth = gf->layer_depth[gf->index],
      .is_key = cm->frame_type == KEY_FRAME,
      .is_shown = again || cm->show_frame,
  };
  return place;
}

static vpxrc_plane plane_of(const YV12_BUFFER_CONFIG *picture, uint8_t *data, int stride, int width,
                            int height) {
  vpxrc_plane plane = {data, stride, width, height};
#if CONFIG_VP9_HIGHBITDEPTH
  if (picture->flags & YV12_FLAG_HIGHBITDEPTH) plane.data = CONVERT_TO_SHORTPTR(data);
#else
  (void)picture;
#endif
  return plane;
}

static void describe_frame(VP9_COMP *cpi, const seam_state *state, vpxrc_frame *frame) {
  const GF_GROUP *const gf = &cpi->twopass.gf_group;
  RefCntBuffer *references[MAX_INTER_REF_FRAMES];
  int bottom = 0, top = 0;
  memset(frame, 0, sizeof(*frame));
  frame->place = place_of(cpi, state);
  frame->tpl_q_index = state->tpl_q_index;
  for (int i = 0; i < MAX_INTER_REF_FRAMES; ++i) frame->reference_coding_index[i] = -1;
  if (!frame->place.is_key) {
    get_ref_frame_bufs(cpi, references);
    for (int i = 0; i < MAX_INTER_REF_FRAMES; ++i)
      if (references[i] != NULL)
        frame->reference_coding_index[i] = references[i]->frame_coding_index;
  }
  frame->libvpx_q_index = vp9_rc_pick_q_and_bounds(cpi, &bottom, &top);
  frame->libvpx_q_low = bottom;
  frame->libvpx_q_high = top;
  frame->libvpx_rdmult = vp9_compute_rd_mult(cpi, frame->libvpx_q_index);
  frame->target_bits = cpi->rc.this_frame_target;
  frame->gfu_boost = cpi->multi_layer_arf ? gf->gfu_boost[gf->index] : cpi->rc.gfu_boost;
  frame->frames_to_key = cpi->rc.frames_to_key;
  frame->has_tpl =
      group_has_tpl(cpi) && gf->index < MAX_ARF_GOP_SIZE && cpi->tpl_stats[gf->index].is_valid;
  /* get_rdmult_delta() in vp9_encodeframe.c reads the scale under these conditions, and at layer
   * depths up to 1: see take_superblock_scale() */
  frame->takes_superblock_scale =
      gf->index >= 1 && gf->index < MAX_ARF_GOP_SIZE && cpi->sf.enable_tpl_model &&
      cpi->tpl_stats[gf->index].is_valid &&
      (frame->place.update_type != ARF_UPDATE || frame->place.layer_depth <= kDeepestSharedContext);
  frame->r0 = frame->has_tpl ? frame_r0(cpi, &cpi->tpl_stats[gf->index]) : NAN;
}

/* libvpx's own TPL scale of one superblock's lambda, as in get_rdmult_delta() of vp9_encodeframe.c,
 * which takes it itself only where nobody controls q. */
static double own_superblock_scale(VP9_COMP *cpi, int q_index, int sb_row, int sb_col, double r0) {
  const int position = cpi->twopass.gf_group.index;
  VP9_COMMON *const cm = &cpi->common;
  if (position < 1 || position >= MAX_ARF_GOP_SIZE || !cpi->tpl_stats[position].is_valid)
    return 1.0;
  int64_t intra_cost, mc_dep_cost;
  sum_tpl(cpi, &cpi->tpl_stats[position], sb_row * MI_BLOCK_SIZE, sb_col * MI_BLOCK_SIZE,
          MI_BLOCK_SIZE, MI_BLOCK_SIZE, &intra_cost, &mc_dep_cost);
  const double rk = (double)intra_cost / (double)mc_dep_cost;
  const int base = cm->base_qindex;
  cm->base_qindex = q_index; /* vp9_get_adaptive_rdmult() reads it; libvpx sets it only later */
  const int adaptive = vp9_get_adaptive_rdmult(cpi, r0 / rk);
  cm->base_qindex = base;
  const int frame_rdmult = vp9_compute_rd_mult(cpi, q_index);
  return (double)VPXMAX(1, clamp(adaptive, frame_rdmult / 2, frame_rdmult * 3 / 2)) / frame_rdmult;
}

/* Makes libvpx read the map, which it does at the base layer only: shows it layer depth 1 while the
 * frame is coded. Besides the map only setup_frame() of vp9_encoder.c looks at the depth then, and
 * only whether an ARF lies deeper than kDeepestSharedContext. The rate control is updated after the
 * result, which puts the true depth back. */
static void take_superblock_scale(VP9_COMP *cpi, seam_state *state) {
  GF_GROUP *const gf = &cpi->twopass.gf_group;
  if (gf->layer_depth[gf->index] <= 1) return;
  state->kept_layer_depth = gf->layer_depth[gf->index];
  gf->layer_depth[gf->index] = 1;
}

/* The linker gives us libvpx's calls of vp9_encode_frame() (--wrap): the one place after
 * setup_frame(), which resets segmentation, and before the blocks are coded. */
void __real_vp9_encode_frame(VP9_COMP *cpi);
void __wrap_vp9_encode_frame(VP9_COMP *cpi);
void __wrap_vp9_encode_frame(VP9_COMP *cpi) {
  EXT_RATECTRL *const rc = &cpi->ext_ratectrl;
  if (rc->ready) vpxrc_begin_region(cpi, &state_of(rc)->region);
  __real_vp9_encode_frame(cpi);
  if (rc->ready) vpxrc_end_region(cpi);
}

/* Whether libvpx is to choose q by itself, recode loop included. A frame lambda and a superblock
 * map are set for one q only, so they need a q that stays. */
static int is_left_to_libvpx(const vpxrc_decision *answer) {
  return answer->q_index == VPXRC_LIBVPX_Q && answer->lambda_scale == 1.0 &&
         answer->superblock_scale == NULL && answer->recode_trace == NULL &&
         answer->delta_q_uv == 0;
}

/* Answers the TPL pass, which asks for every frame of the group: by the plan, else by libvpx's own
 * estimate. */
static void answer_tpl_query(VP9_COMP *cpi, const seam_state *state, int position,
                             vpx_rc_encodeframe_decision_t *decision) {
  const GF_GROUP *const gf = &cpi->twopass.gf_group;
  int bottom, top;
  const int planned = position < VPXRC_MAX_GROUP ? state->plan[position] : VPXRC_LIBVPX_Q;
  decision->q_index = planned != VPXRC_LIBVPX_Q
                          ? planned
                          : vp9_rc_pick_q_and_bounds_two_pass(cpi, &bottom, &top, position);
  decision->q_index = VPXMAX(decision->q_index, 1);
  /* Under q control libvpx leaves the overlay that follows the group with a stale q. */
  const int overlay = gf->gf_group_size;
  if (position == overlay - 1 && overlay < MAX_ARF_GOP_SIZE)
    cpi->tpl_stats[overlay].base_qindex =
        state->plan[overlay] != VPXRC_LIBVPX_Q ? state->plan[overlay] : decision->q_index;
}

vpx_codec_err_t vp9_extrc_get_encodeframe_decision(EXT_RATECTRL *rc, int gop_index,
                                                   vpx_rc_encodeframe_decision_t *decision) {
  VP9_COMP *const cpi = encoder_of(rc);
  seam_state *const state = state_of(rc);
  decision->rdmult = kScaleOne - 1; /* so that sb_params_list[].rdmult is the scale in 1/256 */
  decision->delta_q_uv = 0;
  if (!state->deciding) {
    answer_tpl_query(cpi, state, gop_index, decision);
    return VPX_CODEC_OK;
  }
  state->deciding = 0;

  vpxrc_frame frame;
  describe_frame(cpi, state, &frame);
  vpxrc_decision answer = {VPXRC_LIBVPX_Q, 0, NULL, 1.0, NULL, NULL, NULL, NULL};
  const vpxrc_controller *const controller = state->controller;
  if (controller->decide(controller->user, cpi, &frame, &answer)) {
    vpx_free(decision->sb_params_list); /* libvpx leaves by longjmp and would leak it */
    return VPX_CODEC_ERROR;
  }
  if (vpxrc_take_region(cpi, &state->region, &answer) != VPX_CODEC_OK) {
    vpx_free(decision->sb_params_list);
    return VPX_CODEC_MEM_ERROR;
  }
  if (is_left_to_libvpx(&answer)) {
    /* Without the flag the recode loop goes on after the first coding. The result sets it again. */
    rc->funcs.rc_type &= ~VPX_RC_QP;
    decision->q_index = VPX_DEFAULT_Q;
    return VPX_CODEC_OK;
  }
  const int q = answer.q_index == VPXRC_LIBVPX_Q ? frame.libvpx_q_index : answer.q_index;
  decision->q_index = q;
  decision->delta_q_uv = answer.delta_q_uv;
  state->has_trace = answer.recode_trace != NULL;
  if (state->has_trace) memcpy(state->trace, answer.recode_trace, sizeof(state->trace));
  /* libvpx has set it by the q that it would have taken itself. */
  if (!frame_is_intra_only(&cpi->common))
    vp9_set_high_precision_mv(cpi, state->has_trace ? state->trace[0] : q < kHighPrecisionMvQ);
  if (answer.lambda_scale == 1.0 && answer.superblock_scale == NULL) {
    listen_for_decisions(rc, 0); /* libvpx applies its own TPL lambda, exactly */
    return VPX_CODEC_OK;
  }
  if (answer.superblock_scale != NULL && frame.takes_superblock_scale)
    take_superblock_scale(cpi, state);
  const int position = gop_index;
  const int has_own = position >= 1 && position < MAX_ARF_GOP_SIZE &&
                      cpi->tpl_stats[position].is_valid && answer.superblock_scale == NULL;
  const double r0 = has_own ? frame_r0(cpi, &cpi->tpl_stats[position]) : 1.0;
  const int cols = (cpi->common.width + 63) / 64, rows = (cpi->common.height + 63) / 64;
  for (int i = 0; i < rows * cols; ++i) {
    const double scale = answer.superblock_scale != NULL ? answer.superblock_scale[i]
                         : has_own ? own_superblock_scale(cpi, q, i / cols, i % cols, r0)
                                   : 1.0;
    decision->sb_params_list[i].rdmult = VPXMAX(1, (int)lround(scale * kScaleOne));
  }
  if (answer.lambda_scale != 1.0)
    rc->ext_rdmult = VPXMAX(1, (int)lround(answer.lambda_scale * vp9_compute_rd_mult(cpi, q)));
  return VPX_CODEC_OK;
}

vpx_codec_err_t vp9_extrc_update_encodeframe_result(EXT_RATECTRL *rc, int64_t bit_count,
                                                    int q_index) {
  if (rc == NULL || !rc->ready) return VPX_CODEC_OK;
  VP9_COMP *const cpi = encoder_of(rc);
  seam_state *const state = state_of(rc);
  const VP9_COMMON *const cm = &cpi->common;
  GF_GROUP *const gf = &cpi->twopass.gf_group;
  if (state->kept_layer_depth >= 0)
    gf->layer_depth[gf->index] = (unsigned char)state->kept_layer_depth;
  state->kept_layer_depth = -1;
  const YV12_BUFFER_CONFIG *const picture = &get_ref_cnt_buffer(cm, cm->new_fb_idx)->buf;
  const int again = cm->show_existing_frame;
  if (!again) vpxrc_forget_region(cpi, &state->region);
  if (state->has_trace) {
    cpi->max_mv_magnitude = (unsigned)state->trace[1];
    for (int i = 0; i < SWITCHABLE_FILTERS; ++i)
      cpi->interp_filter_selected[0][i] = state->trace[2 + i];
  }
  state->has_trace = 0;
  const vpxrc_result result = {
      .place = place_of(cpi, state),
      .is_shown_again = again,
      .q_index = again ? -1 : q_index,
      .tpl_q_index = again ? -1 : state->tpl_q_index,
      .rdmult = again ? -1 : cpi->rd.RDMULT,
      .recode_trace = {cm->allow_high_precision_mv, (int)cpi->max_mv_magnitude,
                       cpi->interp_filter_selected[0][0], cpi->interp_filter_selected[0][1],
                       cpi->interp_filter_selected[0][2]},
      .bits = bit_count,
      .reconstruction = {plane_of(picture, picture->y_buffer, picture->y_stride,
                                  picture->y_crop_width, picture->y_crop_height),
                         plane_of(picture, picture->u_buffer, picture->uv_stride,
                                  picture->uv_crop_width, picture->uv_crop_height),
                         plane_of(picture, picture->v_buffer, picture->uv_stride,
                                  picture->uv_crop_width, picture->uv_crop_height)},
  };
  if (!state->controller->observe) {
    rc->funcs.rc_type |= VPX_RC_QP;
    /* Between frames the pointer decides who answers the TPL pass of the next group position. */
    listen_for_decisions(rc, state->has_plan);
  }
  const vpxrc_controller *const controller = state->controller;
  return controller->result(controller->user, &result) ? VPX_CODEC_ERROR : VPX_CODEC_OK;
}

/* Never called: VPX_RC_GOP is not set, so groups and key frames stay libvpx's. */
vpx_codec_err_t vp9_extrc_get_gop_decision(EXT_RATECTRL *rc, vpx_rc_gop_decision_t *decision) {
  (void)rc, (void)decision;
  return VPX_CODEC_INVALID_PARAM;
}

vpx_codec_err_t vp9_extrc_get_key_frame_decision(EXT_RATECTRL *rc,
                                                 vpx_rc_key_frame_decision_t *decision) {
  (void)rc, (void)decision;
  return VPX_CODEC_INVALID_PARAM;
}
