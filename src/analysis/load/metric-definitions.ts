/** Each metric in words: two tools rarely mean the same by one name. c: selections of an expert, N all, μ = N/E. */

export type MetricName =
  | 'maxOverMean'
  | 'meanOverMax'
  | 'topShare'
  | 'cvSample'
  | 'cvPopulation'
  | 'cvUniform'
  | 'gini'
  | 'jain'
  | 'entropyBits'
  | 'entropyNats'
  | 'entropyNormalized'
  | 'effectiveExperts'
  | 'diversity'
  | 'dead'
  | 'deadFraction'
  | 'expectedDeadUniform'
  | 'maxVio'
  | 'minVio'
  | 'avgVio'
  | 'overlap'
  | 'jaccard'
  | 'chanceUniform'
  | 'chancePopularity'
  | 'drift'
  | 'staticSplit'
  | 'lru'
  | 'hitSplit'
  | 'popularitySplit'
  | 'stepMaxOverMean'
  | 'totalMaxOverMean'
  | 'sglang'
  | 'vllm'
  | 'trtllm';

export const METRIC_DEFINITIONS: Readonly<Record<MetricName, string>> = {
  maxOverMean: 'busiest expert over the mean expert, max c/μ',
  meanOverMax: 'μ/max c: 1 is even',
  topShare: 'share of all selections that go to the busiest expert, max c/N',
  cvSample: 'sample standard deviation (n−1) of c over μ: NeMo Automodel’s cv',
  cvPopulation: 'population standard deviation (n) of c over μ',
  cvUniform: 'cv of uniform random routing, √((E−K)/(T·K)): the noise floor',
  gini: '0 even, towards 1 all on one expert: Σ(2i−E−1)c₍ᵢ₎/(E·N), ascending',
  jain: 'N²/(E·Σc²) = 1/(1+cv²) with the population cv; 1 even, 1/E all on one',
  entropyBits: '−Σ p·log₂ p, p = c/N; even: log₂ E',
  entropyNats: '−Σ p·ln p; even: ln E',
  entropyNormalized: 'entropy over that of even routing, H/ln E',
  effectiveExperts: 'e^H: evenly used experts with the same entropy',
  diversity: 'e^H/E: NeMo Automodel’s expert_diversity',
  dead: 'experts without a selection in the rows that were counted',
  deadFraction: 'dead experts over E',
  expectedDeadUniform: 'dead experts that uniform random routing leaves in as many rows, E·(1−K/E)^T',
  maxVio: 'max c/μ − 1 (verl, over all rows here; verl counts the response only)',
  minVio: 'min c/μ − 1',
  avgVio: 'mean of |c/μ − 1|',
  overlap: 'ids that a row shares with the row before, over K',
  jaccard: 'n/(2K−n) for n shared ids, mean over pairs of rows',
  chanceUniform: 'overlap of two random rows if experts were equally popular, K/E',
  chancePopularity: 'overlap of two random rows with these popularities, Σ(c/T)²/K',
  drift: 'total variation distance of neighbouring windows, ½Σ|p−q|, beside that of windows where nothing changes',
  staticSplit:
    'selections served by the m experts that the first half of the rows uses most, tested on the second half',
  lru: 'selections served by the m experts used last, ids in row order',
  hitSplit: 'experts of the next layer among the K predicted ones, fitted on the first half, tested on the second',
  popularitySplit: 'the same, predicting the K most used experts',
  stepMaxOverMean: 'Σ over passes of the busiest rank’s load, over the mean: what passes wait for',
  totalMaxOverMean: 'the busiest rank’s load over the whole run, over the mean: flatters if the busiest rank changes',
  sglang: 'SGLang’s balancedness: mean over layers of (mean+1e-5)/(max+1e-5) of rank loads of a pass; 1 even',
  vllm: 'vLLM’s balancedness: Σ layers of the mean rank load over Σ layers of the maximum; 1 even',
  trtllm: 'TensorRT-LLM’s imbalance ratio: (max−mean)/mean of rank loads, mean over passes; 0 even',
};
