// av1_residuals WIDTH HEIGHT QUANTIZER OUT [decoder|encoder] < PICTURE: the intra residuals of AV1,
// block by block.
//
// Encodes a picture (I420, 8 bits, on the standard input) with an unpatched libaom as one key
// frame, decodes it in the same process, and writes what the decoder did with each transform block
// to OUT; vpxrc/codecs/residuals.py describes the file. The linker's --wrap leads some functions of
// libaom through this file. The in-loop filters are off, so the decoded frame is what the blocks
// gave.
//
// With `decoder`, another program reconstructs blocks, and later predictions see that. For each
// block its row, source and prediction go to the standard output, and a byte comes from the
// standard input: after a 1 the reconstruction comes too, after a 0 the block keeps AV1's. What it
// kept goes to the standard output as well: its row with a 1 in its last byte, the reconstruction
// and the prediction. Partitions, modes and bits are those that AV1 chose for its own
// reconstruction.
//
// With `encoder`, the encoder asks too, whenever it has chosen how to code a block. It chooses the
// later ones by what the other program reconstructs.
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "aom/aom_decoder.h"
#include "aom/aom_encoder.h"
#include "aom/aomcx.h"
#include "aom/aomdx.h"
#include "av1/common/av1_common_int.h"
#include "av1/common/reconintra.h"
#include "av1/decoder/decoder.h"
#include "av1/encoder/block.h"
#include "av1/encoder/encodemb.h"

enum { MAX_SIDE = 64, MAX_BLOCK = MAX_SIDE * MAX_SIDE, PLANES = 3 };

#define FAIL(...) (fprintf(stderr, __VA_ARGS__), fputc('\n', stderr), exit(1))
#define CHECK(call)                                                            \
  do {                                                                         \
    if ((call) != AOM_CODEC_OK) FAIL("libaom refuses the picture: %s", #call); \
  } while (0)

typedef struct {
  double bits;      // all bits of the coefficients, with those of the transform's type
  float type_bits;  // those of the transform's type
  uint16_t x, y;    // of the top left sample in its plane
  uint16_t eob, dc_step, ac_step;
  uint8_t plane, width, height, type, mode;
  int8_t angle;
  uint8_t filter;  // 1 + the filter-intra mode; 0 for none
  uint8_t zero[3];
} Block;

typedef struct {
  uint8_t *data;
  size_t size, capacity;
} Bytes;

static struct {
  bool on;       // the decoder runs; the encoder calls the same functions
  bool loop;     // another program reconstructs
  bool encoder;  // in the encoder as well
  int width, height;
  aom_image_t *source;
  uint8_t *covered[PLANES], *put_together[PLANES];
  double bits;
  float type_bits;
  Bytes blocks, sources, predictions, reconstructions, residuals;
  bool replaced;  // whether the last block has another reconstruction, and which
  uint8_t replacement[MAX_BLOCK];
} state;

// The block that the encoder reconstructs.
static struct {
  const int16_t *steps;  // of its plane; NULL where the encoder only tries
  bool waits;            // for its reconstruction
  Block block;
  uint8_t *destination, source[MAX_BLOCK], prediction[MAX_BLOCK];
  int stride;
} encoder;

static void *grown(Bytes *bytes, size_t more) {
  if (bytes->size + more > bytes->capacity) {
    bytes->capacity = 2 * (bytes->size + more);
    bytes->data = realloc(bytes->data, bytes->capacity);
    if (!bytes->data) FAIL("out of memory");
  }
  bytes->size += more;
  return bytes->data + bytes->size - more;
}

static int plane_width(int plane) { return plane ? (state.width + 1) / 2 : state.width; }
static int plane_height(int plane) { return plane ? (state.height + 1) / 2 : state.height; }

// The exact cost of all symbols so far: minus the logarithm of their probability.
static double position(const aom_reader *reader) {
  return aom_reader_tell(reader) - log2(reader->ec.rng);
}

void __real_av1_read_coeffs_txb(const AV1_COMMON *, DecoderCodingBlock *, aom_reader *, int, int,
                                int, TX_SIZE);
void __wrap_av1_read_coeffs_txb(const AV1_COMMON *cm, DecoderCodingBlock *dcb, aom_reader *reader,
                                int plane, int row, int col, TX_SIZE size) {
  const double before = position(reader);
  __real_av1_read_coeffs_txb(cm, dcb, reader, plane, row, col, size);
  state.bits = position(reader) - before;
}

void __real_av1_read_tx_type(const AV1_COMMON *, MACROBLOCKD *, int, int, TX_SIZE, aom_reader *);
void __wrap_av1_read_tx_type(const AV1_COMMON *cm, MACROBLOCKD *xd, int row, int col, TX_SIZE size,
                             aom_reader *reader) {
  const double before = position(reader);
  __real_av1_read_tx_type(cm, xd, row, col, size, reader);
  state.type_bits = (float)(position(reader) - before);
}

// Asks the other program for a block's reconstruction.
static void ask(const Block *block, const uint8_t *source, const uint8_t *prediction) {
  const int count = block->width * block->height;
  fwrite(block, sizeof *block, 1, stdout);
  fwrite(source, count, 1, stdout);
  fwrite(prediction, count, 1, stdout);
  fflush(stdout);
  const int replaced = getchar();
  if (replaced == EOF || (replaced && fread(state.replacement, count, 1, stdin) != 1))
    FAIL("no reconstruction came");
  state.replaced = replaced;
}

// Puts the reconstruction that came into the frame, or tells the one that is there.
static void settle(const Block *block, const uint8_t *prediction, uint8_t *frame, int stride) {
  Block told = *block;
  told.zero[2] = 1;
  if (!state.replaced) fwrite(&told, sizeof told, 1, stdout);
  for (int y = 0; y < block->height; ++y)
    if (state.replaced)
      memcpy(frame + (ptrdiff_t)y * stride, state.replacement + y * block->width, block->width);
    else
      fwrite(frame + (ptrdiff_t)y * stride, block->width, 1, stdout);
  if (!state.replaced) fwrite(prediction, block->width * block->height, 1, stdout);
}

// Takes the reconstruction of the last block out of the frame, and checks it.
static void reconstructed(uint8_t *frame, int stride, const int16_t *residual) {
  const Block *block = (Block *)(state.blocks.data + state.blocks.size) - 1;
  const int count = block->width * block->height;
  const uint8_t *prediction = state.predictions.data + state.predictions.size - count;
  if (state.loop) settle(block, prediction, frame, stride);
  uint8_t *to = state.reconstructions.data + state.reconstructions.size - count;
  int16_t *kept = (int16_t *)(state.residuals.data + state.residuals.size) - count;
  for (int i = 0; i < count; ++i) {
    const int y = i / block->width, x = i % block->width;
    to[i] = frame[(ptrdiff_t)y * stride + x];
    kept[i] = state.replaced ? to[i] - prediction[i] : residual[y * MAX_SIDE + x];
    const int sum = prediction[i] + kept[i];
    if ((sum < 0 ? 0 : sum > 255 ? 255 : sum) != to[i])
      FAIL("prediction + residual is not the reconstruction at %d, %d of plane %d", block->x + x,
           block->y + y, block->plane);
    if (block->x + x < plane_width(block->plane) && block->y + y < plane_height(block->plane))
      state.put_together[block->plane][(block->y + y) * plane_width(block->plane) + block->x + x] =
          to[i];
  }
}

// Where a plane of the coding block begins, along one axis, in units of four luma samples. Chroma
// of blocks that are one unit long is coded with the last of two.
static int start(int unit, int units, int subsampled) {
  return subsampled && units == 1 ? unit & ~1 : unit;
}

static Block described(const AV1_COMMON *cm, const MACROBLOCKD *xd, int plane, int col, int row,
                       TX_SIZE size) {
  const MB_MODE_INFO *info = xd->mi[0];
  const struct macroblockd_plane *const pd = &xd->plane[plane];
  const int across = pd->subsampling_x, down = pd->subsampling_y;
  const int left = start(xd->mi_col, mi_size_wide[info->bsize], across) * MI_SIZE >> across;
  const int top = start(xd->mi_row, mi_size_high[info->bsize], down) * MI_SIZE >> down;
  Block block = {.bits = state.bits, .type_bits = state.type_bits, .plane = (uint8_t)plane};
  state.bits = state.type_bits = 0;
  block.x = (uint16_t)(left + col * MI_SIZE);
  block.y = (uint16_t)(top + row * MI_SIZE);
  block.width = (uint8_t)tx_size_wide[size];
  block.height = (uint8_t)tx_size_high[size];
  block.mode = plane ? info->uv_mode : info->mode;
  // Where there is no angle, the encoder leaves what it tried last.
  if (block.mode >= V_PRED && block.mode <= D67_PRED && av1_use_angle_delta(info->bsize))
    block.angle = info->angle_delta[plane > 0];
  if (!plane && info->filter_intra_mode_info.use_filter_intra)
    block.filter = 1 + info->filter_intra_mode_info.filter_intra_mode;
  const int16_t *steps = encoder.steps ? encoder.steps : pd->seg_dequant_QTX[info->segment_id];
  block.dc_step = steps[0];
  block.ac_step = steps[1];
  if (state.on && !info->skip_txfm) {
    const DecoderCodingBlock *dcb =
        (const DecoderCodingBlock *)((const char *)xd - offsetof(DecoderCodingBlock, xd));
    block.eob = dcb->eob_data[plane][dcb->txb_offset[plane]].eob;
  }
  if (cm->delta_q_info.delta_q_present_flag || info->use_intrabc)
    FAIL("the stream has a tool that should be off");
  return block;
}

// Ends the encoder's last block, before anything else looks at it.
static void settle_in_encoder(void) {
  if (encoder.waits)
    settle(&encoder.block, encoder.prediction, encoder.destination, encoder.stride);
  encoder.waits = false;
}

void __real_av1_predict_intra_block_facade(const AV1_COMMON *, MACROBLOCKD *, int, int, int,
                                           TX_SIZE);
void __wrap_av1_predict_intra_block_facade(const AV1_COMMON *cm, MACROBLOCKD *xd, int plane,
                                           int col, int row, TX_SIZE size) {
  settle_in_encoder();
  __real_av1_predict_intra_block_facade(cm, xd, plane, col, row, size);
  if (!state.on && !encoder.steps) return;
  const int stride = xd->plane[plane].dst.stride;
  uint8_t *destination =
      xd->plane[plane].dst.buf + (((ptrdiff_t)row * stride + col) << MI_SIZE_LOG2);
  const Block block = described(cm, xd, plane, col, row, size);
  const int count = block.width * block.height, width = plane_width(plane),
            height = plane_height(plane);
  uint8_t *source = encoder.source, *prediction = encoder.prediction;
  if (state.on) {
    memcpy(grown(&state.blocks, sizeof block), &block, sizeof block);
    source = grown(&state.sources, count);
    prediction = grown(&state.predictions, count);
    grown(&state.reconstructions, count);
    grown(&state.residuals, count * sizeof(int16_t));
  }
  for (int i = 0; i < count; ++i) {
    // Outside of the picture its edge is repeated, as in the encoder.
    const int x = block.x + i % block.width, y = block.y + i / block.width;
    const int inside_x = AOMMIN(x, width - 1), inside_y = AOMMIN(y, height - 1);
    source[i] = state.source->planes[plane][inside_y * state.source->stride[plane] + inside_x];
    prediction[i] = destination[(ptrdiff_t)(y - block.y) * stride + x - block.x];
    if (state.on && x < width && y < height && state.covered[plane][y * width + x]++)
      FAIL("two blocks have the sample %d, %d of plane %d", x, y, plane);
  }
  if (state.loop) ask(&block, source, prediction);
  if (encoder.steps) {
    encoder.waits = true;
    encoder.block = block;
    encoder.destination = destination;
    encoder.stride = stride;
    return;
  }
  if (block.eob) return;  // the inverse transform follows
  static const int16_t nothing[MAX_BLOCK];
  reconstructed(destination, stride, nothing);
}

void __real_av1_inverse_transform_block(const MACROBLOCKD *, const tran_low_t *, int, TX_TYPE,
                                        TX_SIZE, uint8_t *, int, int, int);
void __wrap_av1_inverse_transform_block(const MACROBLOCKD *xd, const tran_low_t *coefficients,
                                        int plane, TX_TYPE type, TX_SIZE size, uint8_t *destination,
                                        int stride, int eob, int reduced) {
  if (state.on) ((Block *)(state.blocks.data + state.blocks.size) - 1)->type = type;
  if (state.on) {
    // Apart from the prediction: on a black and on a white block, where one sign each is clipped.
    static uint8_t black[MAX_BLOCK], white[MAX_BLOCK];
    static int16_t residual[MAX_BLOCK];
    memset(black, 0, sizeof black);
    memset(white, 255, sizeof white);
    __real_av1_inverse_transform_block(xd, coefficients, plane, type, size, black, MAX_SIDE, eob,
                                       reduced);
    __real_av1_inverse_transform_block(xd, coefficients, plane, type, size, white, MAX_SIDE, eob,
                                       reduced);
    for (int i = 0; i < MAX_BLOCK; ++i) residual[i] = (int16_t)(black[i] + white[i] - 255);
    __real_av1_inverse_transform_block(xd, coefficients, plane, type, size, destination, stride,
                                       eob, reduced);
    reconstructed(destination, stride, residual);
    return;
  }
  __real_av1_inverse_transform_block(xd, coefficients, plane, type, size, destination, stride, eob,
                                     reduced);
}

// The luma that predicts chroma is copied here.
void __real_cfl_store_tx(MACROBLOCKD *const, int, int, TX_SIZE, BLOCK_SIZE);
void __wrap_cfl_store_tx(MACROBLOCKD *const xd, int row, int col, TX_SIZE size, BLOCK_SIZE block) {
  settle_in_encoder();
  __real_cfl_store_tx(xd, row, col, size, block);
}

// The encoder has chosen how to code a block, and reconstructs it for those after it.
void __real_av1_encode_intra_block_plane(const struct AV1_COMP *, MACROBLOCK *, BLOCK_SIZE, int,
                                         RUN_TYPE, TRELLIS_OPT_TYPE);
void __wrap_av1_encode_intra_block_plane(const struct AV1_COMP *cpi, MACROBLOCK *x, BLOCK_SIZE size,
                                         int plane, RUN_TYPE run, TRELLIS_OPT_TYPE optimize) {
  if (state.encoder) encoder.steps = x->plane[plane].dequant_QTX;
  __real_av1_encode_intra_block_plane(cpi, x, size, plane, run, optimize);
  settle_in_encoder();
  encoder.steps = NULL;
}

static Bytes encoded(int quantizer) {
  aom_codec_enc_cfg_t config;
  aom_codec_ctx_t encoder;
  Bytes stream = {0};
  CHECK(aom_codec_enc_config_default(aom_codec_av1_cx(), &config, AOM_USAGE_ALL_INTRA));
  config.g_w = state.width;
  config.g_h = state.height;
  config.g_threads = config.g_limit = 1;
  config.rc_end_usage = AOM_Q;
  CHECK(aom_codec_enc_init(&encoder, aom_codec_av1_cx(), &config, 0));
  CHECK(aom_codec_control(&encoder, AOME_SET_CPUUSED, 4));
  CHECK(aom_codec_control(&encoder, AOME_SET_CQ_LEVEL, quantizer));
  CHECK(aom_codec_control(&encoder, AV1E_SET_ENABLE_PALETTE, 0));
  CHECK(aom_codec_control(&encoder, AV1E_SET_ENABLE_INTRABC, 0));
  CHECK(aom_codec_control(&encoder, AV1E_SET_DELTAQ_MODE, 0));
  CHECK(aom_codec_control(&encoder, AV1E_SET_LOOPFILTER_CONTROL, 0));
  CHECK(aom_codec_control(&encoder, AV1E_SET_ENABLE_CDEF, 0));
  CHECK(aom_codec_control(&encoder, AV1E_SET_ENABLE_RESTORATION, 0));
  CHECK(aom_codec_encode(&encoder, state.source, 0, 1, 0));
  for (int end = 0; end < 2; ++end) {
    aom_codec_iter_t place = NULL;
    const aom_codec_cx_pkt_t *packet;
    while ((packet = aom_codec_get_cx_data(&encoder, &place)))
      if (packet->kind == AOM_CODEC_CX_FRAME_PKT)
        memcpy(grown(&stream, packet->data.frame.sz), packet->data.frame.buf,
               packet->data.frame.sz);
    if (!end) CHECK(aom_codec_encode(&encoder, NULL, 0, 0, 0));
  }
  aom_codec_destroy(&encoder);
  return stream;
}

// Decodes the stream with the hooks on, and checks the frame. Returns the q index.
static int decoded(const Bytes *stream) {
  aom_codec_dec_cfg_t config = {.threads = 1, .allow_lowbitdepth = 1};
  aom_codec_ctx_t decoder;
  aom_codec_iter_t place = NULL;
  CHECK(aom_codec_dec_init(&decoder, aom_codec_av1_dx(), &config, 0));
  state.on = true;
  CHECK(aom_codec_decode(&decoder, stream->data, stream->size, NULL));
  state.on = false;
  const aom_image_t *frame = aom_codec_get_frame(&decoder, &place);
  if (!frame) FAIL("the decoder gives no frame");
  for (int plane = 0; plane < PLANES; ++plane)
    for (int y = 0; y < plane_height(plane); ++y)
      for (int x = 0; x < plane_width(plane); ++x) {
        const int at = y * plane_width(plane) + x;
        if (!state.covered[plane][at])
          FAIL("no block has the sample %d, %d of plane %d", x, y, plane);
        if (state.put_together[plane][at] !=
            frame->planes[plane][(ptrdiff_t)y * frame->stride[plane] + x])
          FAIL("the blocks are not the frame at %d, %d of plane %d", x, y, plane);
      }
  int q_index = -1;
  CHECK(aom_codec_control(&decoder, AOMD_GET_BASE_Q_IDX, &q_index));
  aom_codec_destroy(&decoder);
  return q_index;
}

static uint32_t crc32_of(uint32_t crc, const void *data, size_t size) {
  crc = ~crc;
  for (const uint8_t *byte = data; size--; ++byte) {
    crc ^= *byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
  }
  return ~crc;
}

static void write_records(const char *path, const Bytes *stream, int q_index) {
  const Bytes *parts[] = {
      stream,          &state.blocks, &state.sources, &state.predictions, &state.reconstructions,
      &state.residuals};
  const int count = sizeof parts / sizeof *parts;
  uint32_t header[10];
  memcpy(header, "VPXRAV1", 7);
  ((uint8_t *)header)[7] = 1;  // the version
  header[2] = state.width;
  header[3] = state.height;
  header[4] = q_index;
  header[5] = state.loop;
  header[6] = (uint32_t)stream->size;
  header[7] = (uint32_t)(state.blocks.size / sizeof(Block));
  header[8] = 0;
  for (int i = 0; i < count; ++i) header[8] = crc32_of(header[8], parts[i]->data, parts[i]->size);
  header[9] = crc32_of(0, header, 9 * sizeof *header);
  FILE *file = fopen(path, "wb");
  bool good = file && fwrite(header, sizeof header, 1, file) == 1;
  for (int i = 0; i < count && good; ++i)
    good = fwrite(parts[i]->data, parts[i]->size, 1, file) == 1;
  if (!good || fclose(file)) FAIL("the records cannot be written");
}

int main(int argc, char **argv) {
  if (argc != 5 && argc != 6)
    FAIL("usage: av1_residuals WIDTH HEIGHT QUANTIZER OUT [decoder|encoder] < PICTURE");
  state.width = atoi(argv[1]);
  state.height = atoi(argv[2]);
  state.loop = argc == 6;
  state.encoder = state.loop && !strcmp(argv[5], "encoder");
  if (state.loop && !state.encoder && strcmp(argv[5], "decoder"))
    FAIL("the loop is that of the decoder or of the encoder");
  if (state.width < 1 || state.height < 1 || state.width > 16384 || state.height > 16384)
    FAIL("a picture has 1 to 16384 samples a side");
  state.source = aom_img_alloc(NULL, AOM_IMG_FMT_I420, state.width, state.height, 32);
  if (!state.source) FAIL("out of memory");
  for (int plane = 0; plane < PLANES; ++plane) {
    const size_t size = (size_t)plane_width(plane) * plane_height(plane);
    state.covered[plane] = calloc(size, 1);
    state.put_together[plane] = calloc(size, 1);
    if (!state.covered[plane] || !state.put_together[plane]) FAIL("out of memory");
    for (int y = 0; y < plane_height(plane); ++y)
      if (fread(state.source->planes[plane] + (ptrdiff_t)y * state.source->stride[plane],
                plane_width(plane), 1, stdin) != 1)
        FAIL("the picture is too short");
  }
  const Bytes stream = encoded(atoi(argv[3]));
  const int q_index = decoded(&stream);
  write_records(argv[4], &stream, q_index);
  return 0;
}
