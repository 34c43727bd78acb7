#include "model/family.h"

enum { CLASS_SCORE, CLASS_MTP };
const struct expert_class classes_by_score[] = {
    [CLASS_SCORE] = {"score", "score-routed"},
    [CLASS_MTP] = {"mtp", "MTP"},
    {0},
};

unsigned class_by_score(const struct model *model, const struct place *place)
{
    (void)model;
    return place->section == SECTION_MTP ? CLASS_MTP : CLASS_SCORE;
}
