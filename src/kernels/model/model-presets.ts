/**
 * Shapes and routing functions of published models, as far as routing shows them. `numLayers` counts the layers that
 * have a router; dense layers have no row. Sources: each model's config.json (`num_hidden_layers` less the dense ones,
 * `first_k_dense_replace`, `moe_layer_start_index`, `interleave_moe_layer_step`, `hybrid_override_pattern`,
 * `num_experts`, `num_experts_per_tok`, `vocab_size`, `n_group`, `topk_group`, `scoring_func`) and its modelling code.
 * What is approximated:
 *
 *     longcat-flash      its 256 zero experts are experts 512 … 767
 *     deepseek-v4-flash  its first three layers, which route by token id, choose by score like the others
 *     phi-3.5-moe        the sparse mixer takes the largest logit, K times: its masks show in weights only
 */

import type { ModelConfig, RouterScoring } from '../../contract/config.ts';
import { RoutedExpertsError } from '../../contract/errors.ts';

/** Multiplications per logit unless asked for otherwise. */
export const DEFAULT_GATE_WIDTH = 8;

type ModelRouting = NonNullable<ModelConfig['routingFunction']>;

type Preset = readonly [
  name: string,
  numLayers: number,
  numExperts: number,
  topK: number,
  vocabSize: number,
  routingFunction: ModelRouting,
  /** Absent: every layer has a router. */
  denseLayers?: readonly number[],
];

const firstDense = (count: number): readonly number[] => Array.from({ length: count }, (_, layer) => layer);
/** Of a text with a letter for each layer, those that are no E: M is Mamba, * is attention. */
const layersWithoutE = (pattern: string): readonly number[] =>
  Array.from(pattern).flatMap((letter, layer) => (letter === 'E' ? [] : [layer]));

const NEMOTRON_NANO = 'MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME';
const NEMOTRON_SUPER = 'MEMEMEM*EMEMEMEM*EMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEM*EMEMEMEME';

const plain = (scoring: RouterScoring): ModelRouting => ({ scoring });
const biased = (scoring: RouterScoring): ModelRouting => ({ scoring, hasSelectionBias: true });
const grouped = (hasSelectionBias: boolean, count: number, keep: number): ModelRouting => ({
  scoring: hasSelectionBias ? 'sigmoid' : 'softmax',
  hasSelectionBias,
  groups: { count, keep, score: hasSelectionBias ? 'top2-sum' : 'max' },
});

const PRESETS: readonly Preset[] = [
  ['gpt-oss-120b', 36, 128, 4, 201_088, plain('topk-softmax')],
  ['gpt-oss-20b', 24, 32, 4, 201_088, plain('topk-softmax')],
  ['qwen3-30b-a3b', 48, 128, 8, 151_936, plain('softmax')],
  ['qwen3-235b', 94, 128, 8, 151_936, plain('softmax')],
  ['qwen3-coder-480b', 62, 160, 8, 151_936, plain('softmax')],
  ['qwen3-next-80b', 48, 512, 10, 151_936, plain('softmax')],
  ['deepseek-v2', 59, 160, 6, 102_400, grouped(false, 8, 3), firstDense(1)],
  ['deepseek-v3', 58, 256, 8, 129_280, grouped(true, 8, 4), firstDense(3)],
  ['deepseek-v4-flash', 43, 256, 6, 129_280, biased('sqrt-softplus')],
  ['kimi-k2', 60, 384, 8, 163_840, biased('sigmoid'), firstDense(1)],
  ['kimi-k3', 92, 896, 16, 163_840, biased('sigmoid'), firstDense(1)],
  ['glm-4.5', 89, 160, 8, 151_552, biased('sigmoid'), firstDense(3)],
  ['minimax-m2', 62, 256, 8, 200_064, biased('sigmoid')],
  ['ernie-4.5-300b', 51, 64, 8, 103_424, biased('softmax'), firstDense(3)],
  ['llama-4-maverick', 24, 128, 1, 202_048, plain('topk-sigmoid'), firstDense(24).map((pair) => 2 * pair)],
  ['longcat-flash', 28, 768, 12, 131_072, biased('softmax')],
  ['nemotron-3-nano', 23, 128, 6, 131_072, biased('sigmoid'), layersWithoutE(NEMOTRON_NANO)],
  ['nemotron-3-super', 40, 512, 22, 131_072, biased('sigmoid'), layersWithoutE(NEMOTRON_SUPER)],
  ['mixtral-8x7b', 32, 8, 2, 32_000, plain('softmax')],
  ['olmoe', 16, 64, 8, 50_304, plain('softmax')],
  ['phi-3.5-moe', 32, 16, 2, 32_064, plain('sparsemixer')],
  ['granite-3.0-1b', 24, 32, 8, 49_155, plain('topk-softmax')],
  ['grok-1', 64, 8, 2, 131_072, plain('softmax')],
  ['tiny', 2, 8, 2, 97, plain('softmax')],
  ['tiny-grouped', 2, 16, 3, 97, grouped(true, 4, 2)],
  ['tiny-softmax-bias', 2, 8, 2, 97, biased('softmax')],
  ['tiny-dense', 3, 8, 2, 97, plain('softmax'), [0, 1, 4]],
];

export const DEFAULT_MODEL = 'gpt-oss-120b';

/** The names that `createEngine({ model })` and `modelPreset` know. */
export const MODEL_NAMES: readonly string[] = PRESETS.map(([name]) => name);

/** The preset of that name. Throws `UNKNOWN_NAME`, listing what there is. */
export function modelPreset(name: string, gateWidth: number = DEFAULT_GATE_WIDTH): ModelConfig {
  const preset = PRESETS.find(([known]) => known === name);
  if (preset === undefined) throw RoutedExpertsError.of('UNKNOWN_NAME', 'model', name, MODEL_NAMES);
  const [, numLayers, numExperts, topK, vocabSize, routingFunction, denseLayers] = preset;
  const shape = { name, numLayers, numExperts, topK, vocabSize, gateWidth, routingFunction };
  return denseLayers === undefined ? shape : { ...shape, denseLayers };
}
