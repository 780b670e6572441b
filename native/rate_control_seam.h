/* The rate-control seam: what libvpx's VP9 encoder says and asks, per frame.
 *
 * libvpx calls an external rate controller through the functions vp9_extrc_*. rate_control_seam.c
 * implements them in place of libvpx's own file, so that no line of libvpx is patched. It is C
 * because libvpx's internal headers are; none of their types appears here.
 */
#ifndef VPXRC_RATE_CONTROL_SEAM_H_
#define VPXRC_RATE_CONTROL_SEAM_H_

#include <stdint.h>

#include "vpx/vpx_encoder.h"

#ifdef __cplusplus
extern "C" {
#endif

#define VPXRC_MAX_GROUP 252 /* MAX_STATIC_GF_GROUP_LENGTH + 2 */
#define VPXRC_FIRST_PASS_FIELDS 26
#define VPXRC_TPL_FIELDS 8
#define VPXRC_LIBVPX_Q (-1) /* leave q to libvpx */
#define VPXRC_SEGMENTS 8    /* VP9's */

/* The recode trace: what the earlier passes leave behind where libvpx's VBR codes a frame more than
 * once. Its fields say whether 1/8-sample vectors are allowed (0/1, by the first q tried), the
 * longest vector in samples (the next frame's search range) and how often each of three
 * interpolation filters was taken (steers later frames' filter search). An exact replay in one pass
 * hands them back. */
#define VPXRC_TRACE_FIELDS 5

/* Update types, the values of libvpx's FRAME_UPDATE_TYPE. */
enum {
  VPXRC_KEY = 0,
  VPXRC_LEAF = 1,
  VPXRC_GOLDEN = 2,
  VPXRC_ARF = 3,
  VPXRC_OVERLAY = 4,
  VPXRC_SHOW_EXISTING = 6
};

/* A golden-frame group as libvpx planned it. Position 0 is its key, golden or overlay frame. */
typedef struct vpxrc_group {
  int32_t index;            /* number of the group within the encode */
  int32_t size;             /* coded and shown-again frames of the group */
  int32_t first_show_index; /* display index of position 0 */
  int32_t max_layer_depth;
  int32_t key_boost;         /* boost of the last key frame */
  int32_t is_key_forced;     /* whether the greatest distance forced the last key frame */
  int32_t zero_motion_share; /* of the frames up to the next key frame, percent without motion */
  int32_t update_type[VPXRC_MAX_GROUP];
  int32_t layer_depth[VPXRC_MAX_GROUP];
  int32_t show_index[VPXRC_MAX_GROUP];
  int32_t bit_allocation[VPXRC_MAX_GROUP]; /* bits, libvpx's own */
  int32_t gfu_boost[VPXRC_MAX_GROUP];
  int32_t references[VPXRC_MAX_GROUP][3]; /* last, golden, altref: group position, -1 = before it */
} vpxrc_group;

/* Which frame of the encode it is. The log's first columns, in this order. */
typedef struct vpxrc_place {
  int32_t coding_index;   /* frames shown again count, and have -1 */
  int32_t show_index;     /* display index of the source frame */
  int32_t group_index;    /* number of the golden-frame group within the encode */
  int32_t group_position; /* in the group, in coding order */
  int32_t update_type;
  int32_t layer_depth; /* 0 key and golden, 1 base ARF, larger for deeper layers */
  int32_t is_key;
  int32_t is_shown; /* 0 for an ARF */
} vpxrc_place;

/* A frame about to be coded. */
typedef struct vpxrc_frame {
  vpxrc_place place;
  int32_t tpl_q_index;               /* provisional q of the last TPL pass for it; -1 = none */
  int32_t reference_coding_index[3]; /* last, golden, altref; -1 = none */
  int32_t libvpx_q_index;            /* the one that libvpx's rate control would take */
  int32_t libvpx_q_low;
  int32_t libvpx_q_high;
  int32_t libvpx_rdmult; /* its frame lambda at that q */
  int32_t target_bits;   /* its target for this frame */
  int32_t gfu_boost;
  int32_t frames_to_key;
  int32_t has_tpl;                /* TPL statistics of the frame are valid */
  int32_t takes_superblock_scale; /* a superblock map has an effect on this frame */
  double r0;                      /* intra_cost / mc_dep_cost over the frame; NaN without TPL */
} vpxrc_frame;

typedef struct vpxrc_decision {
  /* 0..255 or VPXRC_LIBVPX_Q. libvpx codes a frame that is left to it as often as it does without a
   * controller, unless another field of the decision differs from its default. */
  int32_t q_index;
  int32_t delta_q_uv;            /* chroma q delta, -15..15 */
  const int32_t *recode_trace;   /* a logged result's, for an exact replay; else NULL */
  double lambda_scale;           /* factor on the frame's lambda, 1 = libvpx's */
  const float *superblock_scale; /* [sb_rows * sb_cols] or NULL: libvpx's own TPL scale */
  /* A region of interest. It leaves the choice of q, recode loop included, to whoever has it. */
  const float *block_scale;        /* factors on lambda per 16x16 block, [rows * cols], or NULL */
  const uint8_t *segment_map;      /* segment of each 8x8 block, [rows * cols], or NULL */
  const int32_t *segment_q_offset; /* [VPXRC_SEGMENTS], -255..255, on q; read with a map only */
} vpxrc_decision;

/* Samples are uint8_t, or uint16_t where they have more than 8 bits. */
typedef struct vpxrc_plane {
  const void *data;
  int32_t stride; /* in samples */
  int32_t width;
  int32_t height;
} vpxrc_plane;

/* A frame that was coded or shown again. */
typedef struct vpxrc_result {
  vpxrc_place place;
  int32_t is_shown_again; /* nothing is coded, an ARF becomes visible */
  int32_t q_index;        /* -1 where shown again, as tpl_q_index and rdmult */
  int32_t tpl_q_index;    /* -1 also without TPL */
  int32_t rdmult;
  int32_t recode_trace[VPXRC_TRACE_FIELDS];
  int64_t bits;
  vpxrc_plane reconstruction[3];
} vpxrc_result;

/* The controller's side. Each callback returns 0, or non-zero to end the encode with an error. */
typedef struct vpxrc_controller {
  void *user;
  int observe; /* non-zero: libvpx decides, nothing is asked */
  /* stats: [num_frames][VPXRC_FIRST_PASS_FIELDS], in the order of FIRSTPASS_STATS */
  int (*first_pass)(void *user, const double *stats, int num_frames);
  /* plan: [group->size + 1], prefilled with VPXRC_LIBVPX_Q: provisional q indices for the TPL pass,
   * the last one for the overlay that follows the group */
  int (*group)(void *user, const vpxrc_group *group, int16_t *plan);
  /* Right before a frame is coded; decision is prefilled with libvpx's defaults. Not called for
   * frames shown again, nor when observing. `encoder` is for vpxrc_seam_tpl. */
  int (*decide)(void *user, void *encoder, const vpxrc_frame *frame, vpxrc_decision *decision);
  int (*result)(void *user, const vpxrc_result *result);
} vpxrc_controller;

/* Puts the controller (which must outlive the codec) in charge. Pass 2 only. */
vpx_codec_err_t vpxrc_seam_attach(vpx_codec_ctx_t *codec, vpxrc_controller *controller);

/* TPL statistics after propagation of one frame of the current group, per 32x32 block, as
 * [*rows][*cols][VPXRC_TPL_FIELDS]: intra_cost, inter_cost, mc_flow, mc_dep_cost, mc_ref_cost,
 * reference (0..2, -1 = none), mv row, mv column (1/8 sample). Costs are those of samples of 8
 * bits: with more bits they are scaled down. `out` may be NULL to ask for the size. Returns 0 where
 * the frame has none. */
int vpxrc_seam_tpl(const void *encoder, int group_position, int *rows, int *cols, double *out);

/* The AC quantiser step of a q index 0..255, in eighths of a sample. For a bit depth above 8 this
 * needs the libvpx that is built for it. */
int vpxrc_ac_quantizer(int q_index, int bit_depth);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* VPXRC_RATE_CONTROL_SEAM_H_ */
