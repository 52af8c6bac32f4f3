"""What in a sentence is no matter of wording: its numbers, in digits or in words, and its names; in English and Chinese.

A check of right answers must rather let an invention pass than refuse a paraphrase, so whatever may be something else ("one of
them", 一般) is neither. Knows nothing about passages or citations.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from noria.knowledge._sentences import sentence_spans
from noria.knowledge.index import index_terms

__all__ = ["Facts", "counts_otherwise", "facts_of", "holds_names", "is_numeral", "numbers_in"]


@dataclass(frozen=True, slots=True)
class Facts:
    """`numbers` must be in what supports the sentence; `counts` (two reasons, 三个) may be its own, see `counts_otherwise`."""

    numbers: frozenset[str]
    counts: frozenset[str]
    counted: frozenset[tuple[str, str]]
    """Its numbers with the words near that they may be numbers of."""
    names: tuple[str, ...]
    openers: tuple[tuple[str, str], ...]
    """Words that begin the sentence and may be names or not, each with the word after it."""
    places: tuple[str, ...]
    """Chinese names of people, places and organisations."""


@lru_cache(maxsize=256)  # one sentence is held against many passages
def facts_of(sentence: str) -> Facts:
    text = sentence.translate(_WIDE)
    numbers, counts = set(_digits(text)), set[str]()
    for value, exact in (*_english(text), *_chinese(text)):
        (numbers if exact else counts).add(value)
    names, openers = _names(sentence)
    people = tuple(_chinese_names(sentence))
    return Facts(frozenset(numbers), frozenset(counts), _counted(sentence), tuple(names), tuple(openers), people)


# --- numbers --------------------------------------------------------------------------------------------------------------

_WIDE = {0xFF10 + digit: str(digit) for digit in range(10)} | {0xFF0E: "."}
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_MOST_DIGITS = 18
_GROUPING = re.compile(r"(?<=\d),(?=\d{3}\b)")
_SCALED = re.compile(
    r"(?<!\d)(\d{1,15}(?:\.\d{1,15})?)\s*(?:(hundred|thousand|million|billion|trillion)\b|([百千万亿]{1,3}))", re.IGNORECASE
)
_SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"),
    *("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_WORDS = {word: value for value, word in enumerate(_SMALL)} | {word: 10 * value for value, word in enumerate(_TENS, 2)} | _SCALES
_ORDINALS = "third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth".split()  # noqa: SIM905
_EVERY_ORDINAL = {"first": 1, "second": 2} | {word: value for value, word in enumerate(_ORDINALS, 3)}
_ALSO = {"once": 1, "single": 1, "twice": 2, "both": 2, "pair": 2, "couple": 2, "decade": 10, "dozen": 12, "century": 100}
_ANY = "|".join(sorted(_WORDS, key=len, reverse=True))
_ENGLISH = re.compile(
    rf"(?<![\w.])(?:{_ANY})(?:(?:[\s-]+|(?<=hundred)\s+and\s+|(?<=thousand)\s+and\s+)(?:{_ANY}))*(?!\w)", re.IGNORECASE
)
_WORD = re.compile(r"[a-z]+", re.IGNORECASE)
_UNIT = (
    r"(?:years?|months?|weeks?|hours?|minutes?|per\s?cent|percentage|%|kilo|cent|milli|met(?:re|er)s?\b|miles?\b|feet\b|foot\b|inch"
    r"|grams?\b|tons?\b|tonnes?\b|lit(?:re|er)s?\b|euros?\b|dollars?\b|pounds?\b|yuan\b|degrees?\b)"
)
_THEN_UNIT = re.compile(rf"[\s-]+{_UNIT}", re.IGNORECASE)
_ARTICLE_UNIT = re.compile(rf"\ban?\s+{_UNIT}", re.IGNORECASE)

_HAN_DIGITS = {character: value for value, character in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_HAN_SCALES = {"十": 10, "百": 100, "千": 1000, "万": 10**4, "亿": 10**8}
_HAN_NUMBER = re.compile("[〇零一二两三四五六七八九十百千万亿]+")
_NUMERAL = re.compile("[\\d〇零一二两三四五六七八九十百千万亿]+[年月日]?")
_HAN_UNIT = re.compile(
    "小时|分钟|秒|星期|季度|公里|公斤|公分|千克|平方|立方|美元|欧元|英镑|毫米|厘米|千米|[年月日天周岁元米吨升度倍层]"
)
_HAN_COUNTED = re.compile("[个人名位次种条项件台家座辆所篇章节页]")


def is_numeral(term: str) -> bool:
    return _NUMERAL.fullmatch(term) is not None


def numbers_in(text: str) -> frozenset[str]:
    """Everything in `text` that may be meant as a number, as digits."""
    return _numbers_in(text)


@lru_cache(maxsize=2048)
def _numbers_in(text: str) -> frozenset[str]:
    text = text.translate(_WIDE)
    found = {*_NUMBER.findall(_GROUPING.sub("", text)), *_digits(text)}
    found |= {str(_english_value(match.group())) for match in _ENGLISH.finditer(text)}
    found |= {str(_WORDS[word]) for word in _lower_words(text) if word in _WORDS}
    also = _EVERY_ORDINAL | _ALSO
    found |= {str(also[word]) for word in _lower_words(text) if word in also}
    if _ARTICLE_UNIT.search(text):
        found.add("1")
    for run in (match.group()[:_MOST_DIGITS] for match in _HAN_NUMBER.finditer(text)):
        found |= {str(_positional(run)), str(_han_value(run))}
        if len(run) == 2 and all(character in _HAN_DIGITS for character in run):  # 三四 is some three or four
            found |= {str(_HAN_DIGITS[character]) for character in run}
    return frozenset(found)


def _lower_words(text: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(text)}


def _digits(text: str) -> list[str]:
    """Numbers in digits; `12 million` and 3万 as what they come to."""
    text = _GROUPING.sub("", text)
    found: list[str] = []

    def scaled(match: re.Match[str]) -> str:
        scale = _SCALES[match.group(2).lower()] if match.group(2) else 1
        for character in match.group(3) or "":
            scale *= _HAN_SCALES[character]
        whole, _, decimals = match.group(1).partition(".")
        value = int(whole + decimals) * scale
        digits = 10 ** len(decimals)
        found.append(str(value // digits) if value % digits == 0 else str(value / digits))
        return " "

    return [*_NUMBER.findall(_SCALED.sub(scaled, text)), *found]


def _english(text: str) -> list[tuple[str, bool]]:
    """Values of number words, and whether nothing else can be meant."""
    found: list[tuple[str, bool]] = []
    for match in _ENGLISH.finditer(text):
        if text[max(0, match.start() - 9) : match.start()].rstrip()[-1:].isdigit():
            continue  # the `million` of `12 million`
        value = _english_value(match.group())
        exact = value > 10 or (_THEN_UNIT.match(text, match.end()) is not None)
        if exact or value > 1:
            found.append((str(value), exact and value > 1))
    found += [(str(_EVERY_ORDINAL[word]), False) for word in _lower_words(text) if word in _ORDINALS]
    return found


def _english_value(words: str) -> int:
    """`nineteen eighty-seven` is 1987."""
    total = current = 0
    for word in _WORD.findall(words.lower())[:_MOST_DIGITS]:
        value = _WORDS.get(word)
        if value is None:
            continue
        if value == 100:
            current = max(current, 1) * 100
        elif value > 100:
            total, current = total + max(current, 1) * value, 0
        elif current % 100 and not (current % 100 >= 20 and current % 10 == 0 and value < 10):
            current = current * 100 + value
        else:
            current += value
    return total + current


def _chinese(text: str) -> list[tuple[str, bool]]:
    found: list[tuple[str, bool]] = []
    for match in _HAN_NUMBER.finditer(text):
        run, before, end = match.group()[:_MOST_DIGITS], text[max(0, match.start() - 2) : match.start()], match.end()
        if before[-1:] in {"几", "数"} or before[-1:].isdigit():
            continue
        unit, counted = _HAN_UNIT.match(text, end), _HAN_COUNTED.match(text, end)
        if len(run) == 1:
            named = before.endswith(("第", "周", "星期", "礼拜"))
            share = before.endswith("分之")
            if run in "十零〇二两三四五六七八九" and (unit or share):
                found.append((str(_han_value(run)), True))
            elif named or (run == "一" and unit and unit.group() in "年月元米吨升岁") or (run != "一" and counted):
                found.append((str(_han_value(run)), False))
        elif all(character in _HAN_DIGITS for character in run):
            if len(run) > 2:
                found.append((str(_positional(run)), True))
        elif run[0] in _HAN_DIGITS or run[0] == "十":
            found.append((str(_han_value(run)), True))
    return found


def _positional(run: str) -> int:
    """一九八七."""
    return int("".join(str(_HAN_DIGITS[character]) for character in run if character in _HAN_DIGITS) or "0")


def _han_value(run: str) -> int:
    total = section = digit = 0
    for character in run:
        if character in _HAN_DIGITS:
            digit = _HAN_DIGITS[character]
            continue
        scale = _HAN_SCALES[character]
        if scale < 10_000:
            section, digit = section + max(digit, 1) * scale, 0
        else:
            total, section, digit = (total + max(section + digit, 1)) * scale, 0, 0
    return total + section + digit


# --- counts ---------------------------------------------------------------------------------------------------------------

_COUNTED_WORDS = re.compile(r"[\s-]+((?:[^\W\d_][\w'’]*[\s-]*){1,6})")
_HAN_MEASURED = re.compile("([个人名位次种条项件台家座辆所篇章节页年月周天级层步])?([\u4e00-\u9fff]{2})?")
_MEASURES_OF_ITSELF = "人次章节页年月周天级层步"


def counts_otherwise(stretch: str, facts: Facts) -> bool:
    """Whether the stretch gives another number of what the sentence counts."""
    missing = facts.counts - numbers_in(stretch)
    if not missing:
        return False
    there = {noun for _, noun in _counted(stretch)}
    return any(value in missing and noun in there for value, noun in facts.counted)


@lru_cache(maxsize=2048)
def _counted(text: str) -> frozenset[tuple[str, str]]:
    """Numbers with the words that follow them, one pair a word: two for `two of its large plants`, its nouns and what is near."""
    text = text.translate(_WIDE)
    places = [(match.group(), match.end()) for match in _NUMBER.finditer(text)]
    places += [(str(_english_value(match.group())), match.end()) for match in _ENGLISH.finditer(text)]
    places += [
        (str(_EVERY_ORDINAL[match.group().lower()]), match.end())
        for match in _WORD.finditer(text)
        if match.group().lower() in _EVERY_ORDINAL
    ]
    found: set[tuple[str, str]] = set()
    for value, end in places:
        if words := _COUNTED_WORDS.match(text, end):
            nouns = [
                term for word in words.group(1).split() if not _ENGLISH.fullmatch(word) for term in sorted(index_terms(word))
            ]
            found |= {(value, noun) for noun in nouns[:2]}
    places += [(str(_han_value(match.group()[:_MOST_DIGITS])), match.end()) for match in _HAN_NUMBER.finditer(text)]
    for value, end in places:
        measured = _HAN_MEASURED.match(text, end)
        assert measured is not None
        measure, noun = measured.groups()
        if measure and measure in _MEASURES_OF_ITSELF and not (measure == "年" and len(value) == 4):
            found.add((value, measure))
        if measure and noun:
            found.add((value, noun))
    return frozenset(found)


# --- names ----------------------------------------------------------------------------------------------------------------

_CAPITAL = re.compile(r"(?<![^\W_])[^\W\d_][\w'’-]*")
_AFTER = re.compile(r"[ \t]+([^\W\d_A-Z][\w'’-]*)")
_SUBJECT = re.compile(r"(?<![\w'’-])((?:[A-ZÀ-ÖØ-Þ][\w'’-]*[ \t]+){1,4})([a-zß-öø-ÿ][\w'’-]*)")
_SENTENCE_END = '.!?:;\n"“'
_DID = frozenset("was were wrote won made built led ran began became took gave sold bought found sent taught drew grew".split())  # noqa: SIM905
_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff]+")
_MAY_BEGIN_AFTER = frozenset(':：\n"“「(（*•–—-')
# Words that begin sentences, and endings that names rarely have: at the beginning of a sentence a capital says nothing.
_OPENERS = frozenset(
    """
    about above absolutely access according across after again against age air all along already also although always amid
    among an and animal another any anybody anyone anything apart area around art as aside at average back bad based basic
    because before behind below beneath beside besides best better between beyond big black blue body book both breakfast
    but by care case cause certain change chapter child children city class clean clear close coffee cold color colour come
    common compare compared complete consider content contrary control core correct cost could country crop culture current
    daily data day deep demand despite development did different difficult direct do does done down drinking due during each
    early earth easy eight either electric else empty energy english enough entire equal error especially even event
    eventually ever every everybody everyone everything exact exactly example except experience extra fact family famous far
    farm fast feature few field fifteen fifty figure file final fire first fish five fixed follow food foot for force form
    former forty four fourteen free fresh friend from front fruit full further future game general get give given gold good
    government great green ground group growth half hand hard has have he head health heat heavy help hence her here high
    his history home horse hot hour house how however huge human hundred ice idea if important in income indeed index
    industry information inside instead into iron is it its itself just keep key kind knowledge label land language large
    last late later latter law lead least leave left less let level life light like likewise line list little local long
    look loss lot love low lower machine main major make male man many mass material matter may maybe mean meanwhile meat
    method middle might milk million mind minor model modern money month moreover most mother mountain much music must name
    natural nature near nearby nearly necessary neither never new news next night nine no nobody none nor normal north not
    note nothing notice now nowadays number object of off oil old on once one online only open opposite or oral order
    ordinary original other others otherwise our out outside over overall own owner page paper parent part particular party
    past people per perhaps person plant play please point poor power present price prior private problem process product
    program project proper public pure put quality question quick quite rain rate rather raw read real really reason recent
    record red region regular remember remote report rest result return rice right river road room rule run safe safety salt
    same sand save scale school science sea second section see seed seven seventeen several shall she short should side
    signal silver similar simple since single site six sixteen size skin sleep small snow so social soft software soil some
    somebody someone something sometimes soon sound source south space special speed sport spring staff stage start state
    steel step still stone stop storage store story street strong student study subject such sugar summer sun support sure
    surface system table take task tax tea team technology ten test text than thank that the their them then there
    thereafter thereby therefore these they thing think third thirteen thirty this those though thousand three through
    throughout thus time to today together tomorrow tonight too tool top total toward towards town trade traffic travel tree
    true try turn twelve twenty twice two type under underneath unit unless unlike until unto up upon upper us usage use
    user value various version very via video view visit voice wait walk wall war warm was waste water way we weak weather
    web week well were what whatever wheat wheel when whenever where whereas wherever whether which while white who whoever
    whole whom whose why wide wild will wind window wine winter with within without woman women wood word work world would
    wrong year yellow yes yesterday yet you young your youth zero
    """.split()  # noqa: SIM905
)
_COMMON_ENDING = re.compile(
    r"(?:ly|ing|ed|tions?|sions?|ments?|ness|ity|ities|isms?|ists?|ers|ors|ies|ous|ful|less|able|ible|ances?|ences?|ships?|ages?"
    r"|ives?|[^aeiousy]s|es)$"
)
_SURNAMES = frozenset(
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈姚卢姜崔钟谭陆汪范金石廖贾夏"
    "韦付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严覃武戴莫孔向汤张劉陳楊黃趙吳孫馬羅鄭許韓馮鄧蕭蔣葉蘇呂盧鐘譚陸賈"
)
# What the dictionary takes for people's names.
_ORDINARY = frozenset(
    """
    武功 王朝 陆军 雷达 武林 胡同 顾问 王爷 王公 白雪 高峰 石英 高潮 顾客 胡子 王府 叶子 谢谢 白领 孙子 范畴 周转 高明
    陈述 马匹 胡说 林立 王子 白宫 向阳 黎明 陈列 金刚 高僧 许可 朱红 杜绝 白莲 石狮 史诗 谢恩 白白 胡闹 高悬 马背 毛巾
    白布 张开 金石 周密 马夫 陈设 高薪 石林 白发 金黄 林子 林木 杨柳 胡涂 石柱 杜鹃 张贴 周旋 白云 田园 高耸 孔雀 秦王
    王宫 龙王 杜仲 朱砂 史实 张嘴 张口 田野 熊掌 李子 雷声 钱财 万世 白银 卢布 卢比 陈旧 严正 高昂 孔道 金光 顾忌 高超
    胡椒 张罗 徐徐 高雅 高坡 白旗 金山 熊猫 钟声 陶醉 汪洋 任凭 张扬 高喊 周全 毛发 白昼 罗汉 王侯 王道 雷霆 张望 许诺
    白痴 王妃 王后 史前 马鞭 王权 黄牛 孙女 马鞍 于今 石阶 唐诗 马刀 周详 雷雨 熊熊 苏醒 白玉 金秋 朱雀 马虎 罗盘 白羊
    王族 梁柱 钟楼 钱粮 高招 马尾 毛驴 陶冶 黄蜂 方正 丁香 武斗 何曾 杨树 孔径 史官 高阁 叶柄 白鹤 周折 马儿 黄铜 侯爵
    毛竹 严令 马屁 何谓 陈年 钟爱 贺喜 龙虾 何干 白净 雷同 金玉 马达 付诸 范文 宋词 胡来 白桦 石洞 白虎 王法 马驹 胡琴
    万幸 高粱 贺卡 莫测 白沙 王冠 武侠 雷射 严冬 胡桃 白米 汤圆 毛利 顾盼 杜撰 谢幕 武夫 高升 林荫 孙儿 白吃 王储 杨梅
    张狂 马棚 高攀 黎民 唐突 马甲 白塔 白兔 汤水 贺信 胡言 白熊 高清 陶俑 曾祖 白搭 高阶 白送 陈腐 罗致 林海 叶脉 贺礼
    王座 孔洞 余裕 陈词 任满 马帮 白鹭 余光 黄绿 陈迹 余弦 余震 余波 余辉 余晖 余生 余怒 黄叶 黄米 石竹 严师 戴孝 谢顶
    谢礼 周正 白菊 白木 钱柜 韩元 韩文 胡杨 杨桃 姜汤 姜汁 姜丝 姜黄 汤汁 汤头 汤勺 唐装 史志 史评 贺年 贺岁 贺词
    黄金周 胡萝卜 金字塔 石英砂 金刚石 金元宝 杜鹃花 高尔夫 雷阵雨 叶绿素 叶绿体 高中生 段时间 龙井茶 石狮子 白花花
    高岭土 武昌鱼 陆海空 白玉兰 马尾松 高高的
    """.split()  # noqa: SIM905
)
_ORDINARY_ENDING = "单表证率性者区色费额品度型器卡值员部室件款项税量"
_PEOPLE, _PLACES = frozenset({"nr", "nrt", "nrfg"}), frozenset({"ns", "nt"})
_AFTER_NAME = "于在为和与是说有的及被由则将曾"
_OF_PLACE = "市省县区国州镇人"


def holds_names(passage: str, facts: Facts) -> bool:
    """Whether the passage has each of the names, as words of its own."""
    if facts.names:
        terms = _terms_of(passage)
        if not all(_is_there(name, terms) for name in facts.names):
            return False
    for word, after in facts.openers:
        if _another_does(passage, after, {word, *facts.names}) and not _is_there(word, _terms_of(passage)):
            return False
    return all(
        name in passage or (len(name) > 2 and name[-1] in _AFTER_NAME + _OF_PLACE and name[:-1] in passage)
        for name in facts.places
    )


@lru_cache(maxsize=64)
def _terms_of(passage: str) -> frozenset[str]:
    return index_terms(passage)


def _is_there(name: str, terms: frozenset[str]) -> bool:
    """In any inflection: `Germans` for `German`, `Germany` too."""
    for term in index_terms(name):
        near = len(term) >= 4 and any(other.startswith(term) and len(other) - len(term) <= 3 for other in terms)
        if term not in terms and not near:
            return False
    return True


def _another_does(passage: str, after: str, own: set[str]) -> bool:
    """Whether the passage says the word of somebody or something with another name: `Marie Curie` discovered."""
    wanted = index_terms(after) or {after.lower()}
    for match in _SUBJECT.finditer(passage):
        name, verb = match.group(1).split(), match.group(2)
        if not own.isdisjoint(name) or not wanted & (index_terms(verb) or {verb.lower()}):
            continue
        last = name[-1].lower()
        first = not passage[: match.start()].rstrip(" \t") or passage[: match.start()].rstrip(" \t")[-1] in _SENTENCE_END
        plain = last in _OPENERS or _COMMON_ENDING.search(last) is not None
        if len(name) > 1 or not first or (not plain and (verb.endswith("ed") or verb in _DID)):
            return True
    return False


def _names(sentence: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Words with a capital, those apart that may merely begin a sentence; of these, those that may be names all the same."""
    text = _HAN.sub(lambda run: " " * len(run.group()), sentence)
    beginnings = {start for start, _ in sentence_spans(text)}
    names: list[str] = []
    openers: list[tuple[str, str]] = []
    for match in _CAPITAL.finditer(text):
        word = match.group().removesuffix("'s").removesuffix("’s")
        if not word[0].isupper() or word == "I" or (len(word) == 1 and text[match.end() : match.end() + 1] == "."):
            continue
        lowered = word.lower()
        if "'" in lowered or "’" in lowered:  # I'm, It's, don't
            lowered = re.split("['’]", lowered)[0]
        first = (
            match.start() in beginnings or text[max(0, match.start() - 9) : match.start()].rstrip(" \t")[-1:] in _MAY_BEGIN_AFTER
        )
        plain = lowered in _OPENERS or lowered in _WORDS or _COMMON_ENDING.search(lowered) is not None or len(lowered) == 1
        if lowered in _EVERY_ORDINAL or lowered in _SMALL or (first and plain and not word.isupper()):
            continue
        after = _AFTER.match(text, match.end())
        if first and len(word) > 1 and not word.isupper() and not any(character.isdigit() for character in word) and after:
            openers.append((word, after.group(1)))
            continue
        names.append(word)
    return names, openers


def _chinese_names(sentence: str) -> list[str]:
    if not any("\u4e00" <= character <= "\u9fff" for character in sentence):
        return []
    import rjieba

    return [
        word
        for word, kind in rjieba.tag(sentence)
        if len(word) > 1
        and "\u4e00" <= word[0] <= "\u9fff"
        and (kind in _PLACES or (kind in _PEOPLE and _may_be_a_person(word, kind)))
    ]


def _may_be_a_person(word: str, kind: str) -> bool:
    """The dictionary takes words that begin like a surname for people: 顾客, 许可, 白名单."""
    if word in _ORDINARY or (len(word) > 2 and word[-1] in _ORDINARY_ENDING):
        return False
    return kind != "nr" or (word[0] in _SURNAMES and len(word) <= 3)
