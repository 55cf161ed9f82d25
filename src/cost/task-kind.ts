/** What a call is for, as far as it shows: answers of one kind are of about one length. */
export const TASK_KINDS = ['real_time', 'conversational', 'data_analysis', 'multimodal'] as const;
export type TaskKind = (typeof TASK_KINDS)[number];

/** A question so short, asked for as a stream, waits for its first word. */
const REAL_TIME_CHARS_MAX = 400;
/** Of a text, so much shows what it is. */
const LOOKED_AT_CHARS = 4_096;
const DATA = /```|\bSELECT\b[\s\S]{1,400}\bFROM\b|\b(?:csv|dataframe|regression|correlation|spreadsheet|pivot|json|table|aggregate|dataset)\b/i;
/** What stands below the heading of a Markdown table. */
const TABLE_RULE = /^[ \t|]*:?-{3,}:?[ \t]*\|[ \t|:-]*\r?$/m;
const SEPARATORS = [',', ';', '\t', '|'] as const;
/** A row of a table has so many cells after its first, no longer than this: prose has longer ones. */
const CELLS_LEAST = 4;
const CELL_CHARS_MAX = 40;

/** Pure, and quick. */
export function taskKindOf(text: string, capabilities: readonly string[], stream: boolean): TaskKind {
  if (capabilities.includes('image_input') || capabilities.includes('image_output')) return 'multimodal';
  if (capabilities.includes('structured_output') || showsData(text.slice(0, LOOKED_AT_CHARS))) return 'data_analysis';
  return stream && text.length <= REAL_TIME_CHARS_MAX ? 'real_time' : 'conversational';
}

function showsData(text: string): boolean {
  if (DATA.test(text) || TABLE_RULE.test(text)) return true;
  const lines = text.split('\n');
  // A last row may lack its line end, but one line by itself is a sentence.
  return lines.length > 1 && lines.some((line) => SEPARATORS.some((separator) => isRow(line.split(separator), separator)));
}

function isRow(cells: readonly string[], separator: (typeof SEPARATORS)[number]): boolean {
  if (cells.length <= CELLS_LEAST || cells.slice(-CELLS_LEAST).some((cell) => cell.length > CELL_CHARS_MAX)) return false;
  // `a || b` is of a program, and so is a line that only begins with tabs.
  if (separator === '|' && cells.slice(1, -1).includes('')) return false;
  return cells.filter((cell) => cell.trim() !== '').length > 1;
}
