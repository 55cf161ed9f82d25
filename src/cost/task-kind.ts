/** What a call is for, as far as it shows: answers of one kind are of about one length. */
export const TASK_KINDS = ['real_time', 'conversational', 'data_analysis', 'multimodal'] as const;
export type TaskKind = (typeof TASK_KINDS)[number];

/** A question so short, asked for as a stream, waits for its first word. */
const REAL_TIME_CHARS_MAX = 400;
/** Of a text, so much shows what it is. */
const LOOKED_AT_CHARS = 4_096;
const DATA = /```|\bSELECT\b[\s\S]{1,400}\bFROM\b|\b(?:csv|dataframe|regression|correlation|spreadsheet|pivot|json|table|aggregate|dataset)\b|(?:^|\n)[^\n]*(?:[|,;\t][^\n|,;\t]{1,40}){4,}\n/i;

/** Pure, and quick. */
export function taskKindOf(text: string, capabilities: readonly string[], stream: boolean): TaskKind {
  if (capabilities.includes('image_input') || capabilities.includes('image_output')) return 'multimodal';
  if (capabilities.includes('structured_output') || DATA.test(text.slice(0, LOOKED_AT_CHARS))) return 'data_analysis';
  return stream && text.length <= REAL_TIME_CHARS_MAX ? 'real_time' : 'conversational';
}
