"""Words that mean the same, so that a search for "kidney" finds what is called "renal"."""

from slicer.i18n import tr as _

# A text that holds the first or second word of a row is found by all of them. Lower case; a word of
# three letters or fewer counts only as a whole word.
GROUPS = (
    ("mr", "mri", "magnetic resonance", "t1", "t2", "flair"),
    ("ct", "computed tomography", "hounsfield"),
    ("pt", "pet", "positron emission"),
    ("us", "ultrasound", "sonography"),
    ("hippocampus", "temporal lobe", "brain", "head", "cerebral", "neuro"),
    ("brain", "cerebral", "cerebrum", "head", "neuro"),
    ("liver", "hepatic", "abdomen"),
    ("kidney", "renal", "abdomen"),
    ("spleen", "splenic", "abdomen"),
    ("pancreas", "pancreatic", "abdomen"),
    ("heart", "cardiac", "ventricle", "atrium", "myocardium", "chest", "thorax"),
    ("left ventricle", "right ventricle", "heart", "cardiac", "cine", "chest", "thorax"),
    ("lung", "pulmonary", "chest", "thorax"),
    ("vertebra", "spine", "spinal", "back"),
    ("bone", "skeleton", "osseous"),
    ("stomach", "gastric", "abdomen"),
    ("bowel", "colon", "intestine", "abdomen"),
    ("bladder", "urinary", "pelvis"),
    ("prostate", "prostatic", "pelvis"),
    ("tumour", "tumor", "lesion", "cancer", "neoplasm"),
    ("vessel", "artery", "vein", "vascular", "aorta"),
    ("tooth", "teeth", "dental", "jaw"),
)

# What a group's first word is called in the user's language.
TRANSLATED = {
    "hippocampus": lambda: _("hippocampus"),
    "brain": lambda: _("brain"),
    "liver": lambda: _("liver"),
    "kidney": lambda: _("kidney"),
    "spleen": lambda: _("spleen"),
    "pancreas": lambda: _("pancreas"),
    "heart": lambda: _("heart"),
    "lung": lambda: _("lung"),
    "vertebra": lambda: _("vertebra"),
    "bone": lambda: _("bone"),
    "stomach": lambda: _("stomach"),
    "bowel": lambda: _("bowel"),
    "bladder": lambda: _("bladder"),
    "prostate": lambda: _("prostate"),
    "tumour": lambda: _("tumour"),
    "vessel": lambda: _("vessel"),
    "tooth": lambda: _("tooth"),
}


def withSynonyms(text):
    """A text in lower case, and all words that mean what one of its words does."""
    words = set(text.replace(",", " ").replace("(", " ").replace(")", " ").split())
    found = [text]
    for group in GROUPS:
        if any(_holds(text, words, word) for word in group[:2]):
            found += group
            if group[0] in TRANSLATED:
                found.append(TRANSLATED[group[0]]().casefold())
    return " ".join(found)


def _holds(text, words, word):
    return word in words if len(word) <= 3 else word in text
