#include "region_of_interest.h"

#include <stddef.h>
#include <string.h>

#include "vp9/common/vp9_seg_common.h"
#include "vp9/encoder/vp9_segmentation.h"
#include "vpx_mem/vpx_mem.h"

_Static_assert((int)VPXRC_SEGMENTS == (int)MAX_SEGMENTS, "segments of this libvpx");

/* Makes libvpx scale lambda per 16x16 block as its tuning for SSIM does, but by our factors.
 * Between frames that tuning is off, so libvpx computes none of its own. */
static vpx_codec_err_t take_block_scale(VP9_COMP *cpi, const float *scale) {
  const VP9_COMMON *const cm = &cpi->common;
  const int size = cm->mb_rows * cm->mb_cols;
  if (cpi->mi_ssim_rdmult_scaling_factors == NULL) {
    cpi->mi_ssim_rdmult_scaling_factors =
        vpx_calloc(size, sizeof(*cpi->mi_ssim_rdmult_scaling_factors));
    if (cpi->mi_ssim_rdmult_scaling_factors == NULL) return VPX_CODEC_MEM_ERROR;
    cpi->mi_ssim_rdmult_scaling_factors_rows = cm->mb_rows;
    cpi->mi_ssim_rdmult_scaling_factors_cols = cm->mb_cols;
  }
  for (int i = 0; i < size; ++i) cpi->mi_ssim_rdmult_scaling_factors[i] = scale[i];
  cpi->oxcf.tuning = VP8_TUNE_SSIM;
  /* set_segment_rdmult() of vp9_encodeframe.c would apply the factors to a lambda that has them
   * already, unless it begins with the superblock's. Without TPL statistics that is the frame's. */
  cpi->sf.enable_tpl_model = 1;
  return VPX_CODEC_OK;
}

static void take_segments(VP9_COMP *cpi, vpxrc_region_state *state, const vpxrc_decision *answer) {
  const size_t size = (size_t)cpi->common.mi_rows * cpi->common.mi_cols;
  state->has_segments = 1;
  state->is_new_map = memcmp(cpi->segmentation_map, answer->segment_map, size) != 0;
  memcpy(cpi->segmentation_map, answer->segment_map, size);
  memcpy(state->segment_q_offset, answer->segment_q_offset, sizeof(state->segment_q_offset));
}

/* Switches segmentation on or off for the frame, and sends only what the decoder does not have. */
static void set_up_segments(VP9_COMP *cpi, const vpxrc_region_state *state) {
  const VP9_COMMON *const cm = &cpi->common;
  struct segmentation *const seg = &cpi->common.seg;
  if (!state->has_segments) {
    if (seg->enabled) vp9_disable_segmentation(seg);
    return;
  }
  /* The decoder forgets map and offsets at these frames. */
  const int is_new = !state->had_segments || frame_is_intra_only(cm) || cm->error_resilient_mode;
  int is_new_offset = 0;
  for (int i = 0; i < VPXRC_SEGMENTS; ++i)
    is_new_offset |= get_segdata(seg, i, SEG_LVL_ALT_Q) != state->segment_q_offset[i];
  vp9_clearall_segfeatures(seg);
  for (int i = 0; i < VPXRC_SEGMENTS; ++i) {
    if (state->segment_q_offset[i] == 0) continue;
    vp9_enable_segfeature(seg, i, SEG_LVL_ALT_Q);
    vp9_set_segdata(seg, i, SEG_LVL_ALT_Q, state->segment_q_offset[i]);
  }
  seg->enabled = 1;
  seg->abs_delta = SEGMENT_DELTADATA;
  seg->update_map = is_new || state->is_new_map;
  seg->update_data = is_new || is_new_offset;
}

vpx_codec_err_t vpxrc_take_region(VP9_COMP *cpi, vpxrc_region_state *state,
                                  const vpxrc_decision *answer) {
  if (answer->segment_map != NULL) take_segments(cpi, state, answer);
  return answer->block_scale != NULL ? take_block_scale(cpi, answer->block_scale) : VPX_CODEC_OK;
}

void vpxrc_begin_region(VP9_COMP *cpi, vpxrc_region_state *state) {
  if (cpi->common.base_qindex == 0) state->has_segments = 0; /* lossless, for the whole frame */
  set_up_segments(cpi, state);
  if (!state->has_segments) return;
  cpi->roi.enabled = 1; /* makes set_segment_index() of vp9_encodeframe.c look at the map */
  /* Without AQ, update_state() there leaves a block with the quantiser of the block that was tried
   * last. PSNR_AQ does nothing else in there, but for one: the trellis does not get the TPL scale
   * of lambda. */
  cpi->oxcf.aq_mode = PSNR_AQ;
}

void vpxrc_end_region(VP9_COMP *cpi) {
  cpi->roi.enabled = 0;
  cpi->oxcf.aq_mode = NO_AQ;
}

void vpxrc_forget_region(VP9_COMP *cpi, vpxrc_region_state *state) {
  state->had_segments = state->has_segments;
  state->has_segments = 0;
  cpi->oxcf.tuning = VP8_TUNE_PSNR;
  cpi->sf.enable_tpl_model = cpi->oxcf.enable_tpl_model;
}
