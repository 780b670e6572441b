/* Regions of interest: what the seam makes libvpx do with the region of a decision. */
#ifndef VPXRC_REGION_OF_INTEREST_H_
#define VPXRC_REGION_OF_INTEREST_H_

#include <stdint.h>

#include "rate_control_seam.h"
#include "vp9/encoder/vp9_encoder.h"

typedef struct vpxrc_region_state {
  int has_segments; /* the frame at hand has them; their map is cpi->segmentation_map */
  int is_new_map;   /* it differs from that of the frame before */
  int32_t segment_q_offset[VPXRC_SEGMENTS];
  int had_segments; /* the frame coded last had them */
} vpxrc_region_state;

/* Takes the region of the decision on the frame at hand, if it has one. */
vpx_codec_err_t vpxrc_take_region(VP9_COMP *cpi, vpxrc_region_state *state,
                                  const vpxrc_decision *answer);

/* Right before and after vp9_encode_frame(), which may be called several times for a frame. */
void vpxrc_begin_region(VP9_COMP *cpi, vpxrc_region_state *state);
void vpxrc_end_region(VP9_COMP *cpi);

/* After the frame was coded for good. */
void vpxrc_forget_region(VP9_COMP *cpi, vpxrc_region_state *state);

#endif /* VPXRC_REGION_OF_INTEREST_H_ */
