/**
 * Shapes of published models, as far as routing shows them. `numLayers` counts the layers that have a router; dense layers have no row.
 * Sources: each model's config.json (`num_hidden_layers` less the dense first ones, `num_experts`, `num_experts_per_tok`, `vocab_size`).
 */

import type { ModelConfig } from '../contract/config.ts';
import { RoutedExpertsError } from '../contract/errors.ts';

/** Multiplications per logit unless asked for otherwise. */
export const DEFAULT_GATE_WIDTH = 8;

type Preset = readonly [name: string, numLayers: number, numExperts: number, topK: number, vocabSize: number];

const PRESETS: readonly Preset[] = [
  ['gpt-oss-120b', 36, 128, 4, 201_088],
  ['gpt-oss-20b', 24, 32, 4, 201_088],
  ['qwen3-30b-a3b', 48, 128, 8, 151_936],
  ['qwen3-235b', 94, 128, 8, 151_936],
  ['deepseek-v3', 58, 256, 8, 129_280],
  ['kimi-k2', 60, 384, 8, 163_840],
  ['mixtral-8x7b', 32, 8, 2, 32_000],
  ['granite-3.0-1b', 24, 32, 8, 49_155],
  ['tiny', 2, 8, 2, 97],
];

export const DEFAULT_MODEL = 'gpt-oss-120b';

export const MODEL_NAMES: readonly string[] = PRESETS.map(([name]) => name);

/** The preset of that name. Throws `UNKNOWN_NAME`, listing what there is. */
export function modelPreset(name: string, gateWidth: number = DEFAULT_GATE_WIDTH): ModelConfig {
  const preset = PRESETS.find(([known]) => known === name);
  if (preset === undefined) throw RoutedExpertsError.of('UNKNOWN_NAME', 'model', name, MODEL_NAMES);
  const [, numLayers, numExperts, topK, vocabSize] = preset;
  return { name, numLayers, numExperts, topK, vocabSize, gateWidth };
}
